"""Disks that fill at any byte: the run ends with one line or continues, and its messages are true."""

import random
import re
import resource
import shutil
from pathlib import Path

import pytest
import tiny
from runs import assert_same_weights, losses, records, weights

from gpt2.cli import command as cli

FLAGS = {"stop_after": 6, "save_every": 2, "val_every": 3, "val_split": 0.3, "sample_every": 4, "sample_length": 9}
FOLDER = Path("checkpoint/run1")
SAVED = re.compile(r"Saving checkpoint/run1/model-(\d+)\n(?!warning)")


@pytest.fixture
def limited(run):
    """Return limited(limit, flag=value, ...), which is `run` while no file can grow beyond `limit` bytes."""

    def limited(limit, **flags):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            return run(**flags)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


def check_full_disks(count, seed, run, limited):
    rng = random.Random(seed)
    assert run(run_name="whole", **FLAGS)[0] == 0
    sizes = sorted({path.stat().st_size for path in Path("checkpoint/whole").rglob("*") if path.is_file()})
    for _ in range(count):
        done = rng.choice([0, 2])
        if done:
            assert run(**FLAGS | {"stop_after": done})[0] == 0
        limit = max(0, rng.choice(sizes) - rng.randrange(1, 60))
        status, out, err = limited(limit, **FLAGS)
        shown = f"{limit} bytes after {done} updates: {status}, {out[-500:]!r}, {err[-500:]!r}"
        assert status in (0, 1) and err.count("error: ") == status and cli.DEBUG_VARIABLE not in err, shown
        written = SAVED.findall(out)
        for step in written[: len(written) - status]:  # if the status is 1, the last save failed
            assert (FOLDER / f"model-{step}.index").is_file(), shown
        if done or (FOLDER / "checkpoint").is_file():
            tiny.read_model(FOLDER)
        status, _, err = run(**FLAGS)
        assert status == 0, f"{shown}, then {err[-500:]!r}"
        assert losses() == pytest.approx(losses("whole"), abs=1e-5), shown
        assert [record["step"] for record in records()] == [record["step"] for record in records("whole")], shown
        assert_same_weights(weights(), weights("whole"), 1e-5)
        assert not list(Path().rglob(".*")), shown
        shutil.rmtree(FOLDER)
        shutil.rmtree("samples/run1", ignore_errors=True)


def test_full_disks(run, limited):
    check_full_disks(2, 1, run, limited)


@pytest.mark.slow
@pytest.mark.parametrize("count, seed", [(3, 1), (100, 2)])
def test_many_full_disks(run, limited, count, seed):
    check_full_disks(count, seed, run, limited)
