"""Files of a run: what a killed one leaves, full disks, folders that are gone."""

from pathlib import Path

from runs import losses

LEFT = [
    "checkpoint/run1/.loss.png.01234567.part",
    "checkpoint/run1/.progress.jsonl.89abcdef.part",
    "checkpoint/run1/.saving-abc/model-3.index",
    "checkpoint/run1/best/.saving-abc/model-3.index",
    "checkpoint/run1/best/.hparams.json.01234567.part",
    "samples/run1/.samples-3.01234567.part",
]
OWN = ["checkpoint/run1/.notes.part", "samples/run1/mine.part"]


def test_what_a_killed_run_left_unfinished_is_removed(run):
    run(stop_after=1)
    for path in map(Path, LEFT + OWN):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run(stop_after=2)[0] == 0 and list(losses()) == [1, 2]
    assert not [path for path in LEFT if Path(path).exists()]
    assert all(Path(path).exists() for path in OWN)
