"""Packed weights stored for the next process: the same numbers, or packed again if anything is wrong with the file."""

import errno
import inspect
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

import interactive_conditional_samples as interactive
from gpt2 import files
from gpt2.cli import command, diagnostics
from gpt2.engine import load
from gpt2.engine.backend import Segment
from gpt2.engine.native import build, cache_folder, huge_pages, packed_store, packing
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import PRECISIONS

OTHER = {"layout": "of another processor", "notify": files.no_callback}
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SRC = Path(packed_store.__file__).resolve().parents[3]


@pytest.fixture
def cache(native, tmp_path, monkeypatch):
    """Return the folder of a cache that stores models of any size."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(packed_store, "MIN_BYTES", 0)
    return folder


@pytest.fixture
def pack_calls(monkeypatch):
    """Return a list with an element for each time that weights were packed."""
    calls = []
    pack_weights = packing.pack_weights
    monkeypatch.setattr(packing, "pack_weights", lambda *args: calls.append(1) or pack_weights(*args))
    return calls


def logits(path, precision="float32", **options):
    backend = load.load_backend(open_model_dir(path), precision, **options)
    pool = backend.new_pool()
    return backend.extend(pool, [Segment([pool.allocate()], 0, np.arange(9), 9)]).values.tobytes()


def stored_files(cache):
    return sorted(cache.glob("*.packed"))


@pytest.mark.parametrize("in_huge_pages", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_weights_give_the_same_bits(cache, pack_calls, tiny_dir, monkeypatch, precision, in_huge_pages):
    monkeypatch.setattr(packed_store, "is_in_huge_pages", lambda _: in_huge_pages)
    results = [logits(tiny_dir, precision) for _ in range(3)]
    assert results == [logits(tiny_dir, precision, cache=False)] * 3
    assert len(pack_calls) == 2  # the first time, and without the cache
    (path,) = stored_files(cache)
    assert path.stat().st_mode & 0o777 == 0o644


def test_storing_weights_is_logged_once(cache, tiny_dir):
    messages = []
    for _ in range(2):
        logits(tiny_dir, notify=messages.append)
    assert messages == [f"packed weights are stored for the next start: 0 MB in {cache}"]


def test_each_precision_and_each_layout_has_its_own_file(cache, pack_calls, tiny_dir, monkeypatch):
    for precision in PRECISIONS:
        logits(tiny_dir, precision)
    assert len(stored_files(cache)) == 3
    monkeypatch.setattr(packed_store.PackedStore, "__init__", lambda self, *_: vars(self).update(OTHER))
    logits(tiny_dir)
    assert len(stored_files(cache)) == len(pack_calls) == 4


def test_replaced_weights_are_packed_again(cache, pack_calls, tmp_path):
    first = tiny.write_model(tmp_path / "model", seed=1)
    before = logits(first)
    shutil.rmtree(first)
    second = tiny.write_model(tmp_path / "model", seed=2)
    assert logits(second) == logits(second, cache=False) != before
    assert len(stored_files(cache)) == 2


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_written_again(cache, pack_calls, tiny_dir, fraction):
    whole = logits(tiny_dir)
    (path,) = stored_files(cache)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    assert logits(tiny_dir) == whole and len(pack_calls) == 2
    assert path.read_bytes() == content
    assert logits(tiny_dir) == whole and len(pack_calls) == 2


def test_a_wrong_byte_is_detected_at_any_position(cache, pack_calls, tiny_dir):
    whole = logits(tiny_dir)
    (path,) = stored_files(cache)
    content = path.read_bytes()
    for i in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x14]) + content[i + 1 :])
        assert logits(tiny_dir) == whole, i
    assert len(pack_calls) > 40  # in the other cases, the byte is between two arrays


@pytest.mark.parametrize("writable", ["file", "folder"])
def test_what_other_users_can_write_is_not_used(cache, pack_calls, tiny_dir, writable):
    whole = logits(tiny_dir)
    (path,) = stored_files(cache)
    (path if writable == "file" else cache).chmod(0o777)
    assert logits(tiny_dir) == whole and len(pack_calls) == 2


def raise_disk_full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "module, name, replacement",
    [
        (packed_store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0)),
        (packed_store, "_write_whole", raise_disk_full),
        (cache_folder, "find_writable_folder", raise_disk_full),
    ],
)
def test_a_full_or_read_only_disk_does_no_harm(cache, tiny_dir, monkeypatch, module, name, replacement):
    monkeypatch.setattr(module, name, replacement)
    assert logits(tiny_dir) == logits(tiny_dir, cache=False)
    assert not cache.exists() or not list(cache.iterdir())


def test_least_recently_used_files_are_removed(cache, tmp_path, monkeypatch):
    models = [tiny.write_model(tmp_path / str(seed), seed=seed) for seed in range(4)]
    for model in models[:3]:
        logits(model)
        time.sleep(0.02)
    first, second, _third = (path.name for path in sorted(stored_files(cache), key=lambda path: path.stat().st_mtime))
    logits(models[0])  # used again
    size = stored_files(cache)[0].stat().st_size
    monkeypatch.setattr(packed_store, "MAX_TOTAL_BYTES", 3 * size + size // 2)
    logits(models[3])
    names = {path.name for path in stored_files(cache)}
    assert len(names) == 3 and first in names and second not in names
    monkeypatch.setattr(packed_store, "MAX_TOTAL_BYTES", size // 2)
    logits(models[1])
    assert not stored_files(cache)  # one alone is too large


def test_partial_files_of_killed_processes_are_removed(cache, tiny_dir):
    cache.mkdir(mode=0o700)
    partial = cache / ".0123.packed.89abcdef.part"
    partial.write_bytes(b"half")
    logits(tiny_dir)
    assert not partial.exists() and len(stored_files(cache)) == 1


def test_small_models_and_models_from_memory_are_not_stored(cache, tiny_dir, monkeypatch):
    weights = open_model_dir(tiny_dir).read()
    unknown = {name: weight._replace(identity=None) for name, weight in weights.items()}
    assert packed_store.PackedStore(build.load()).file_name(unknown, "int8") is None
    monkeypatch.setattr(packed_store, "MIN_BYTES", 1 << 20)
    assert packed_store.PackedStore(build.load()).file_name(weights, "int8") is None


def test_weights_of_other_formats_are_identified_by_their_files(tmp_path):
    shutil.copytree(GOLDEN / "huggingface", tmp_path / "model")
    identities = [weight.identity for weight in open_model_dir(tmp_path / "model").read().values()]
    assert None not in identities and len(set(identities)) == len(identities)
    for path in (tmp_path / "model").glob("*.safetensors"):
        os.utime(path, ns=(1, 1))
    changed = [weight.identity for weight in open_model_dir(tmp_path / "model").read().values()]
    assert not set(changed) & set(identities)


def test_two_processes_at_once(cache, tiny_dir):
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
from pathlib import Path
from gpt2.engine import load
from gpt2.engine.native import packed_store
from gpt2.formats.model_dir import open_model_dir
import numpy as np
from gpt2.engine.backend import Segment
packed_store.MIN_BYTES = 0
{inspect.getsource(logits)}
print(logits(Path({str(tiny_dir)!r})).hex())
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].decode().strip() for process in processes]
    assert outputs == [logits(tiny_dir, cache=False).hex()] * 2
    assert [path.suffix for path in cache.iterdir()] == [".packed"]


def test_a_changed_file_has_another_fingerprint(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = files.file_fingerprint(path)
    assert files.file_fingerprint(path) == before
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert files.file_fingerprint(path) != before


def test_huge_pages_of_a_file_are_read_from_the_systems_report(tmp_path, monkeypatch):
    import mmap

    path, smaps, enabled = tmp_path / "file", tmp_path / "smaps", tmp_path / "enabled"
    path.write_bytes(bytes(1 << 20))
    monkeypatch.setattr(huge_pages, "SMAPS_FILE", smaps)
    monkeypatch.setattr(huge_pages, "HUGE_PAGES_FILE", enabled)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = np.frombuffer(mapped, np.uint8).ctypes.data
        for kb, expected in ((1024, True), (0, False)):
            enabled.write_text("always [madvise] never\n")
            smaps.write_text(
                "1000-2000 r--s 0 0:0 1 other\nFilePmdMapped:     1024 kB\n"
                f"{start:x}-{start + (1 << 20):x} r--s 0 0:0 1 {path}\nRss: 1 kB\nFilePmdMapped: {kb:8} kB\n"
                "fffffff000-fffffff100 r--s 0 0:0 1 other\nFilePmdMapped:     1024 kB\n"
            )
            assert huge_pages.is_in_huge_pages(mapped) is expected
        enabled.write_text("always madvise [never]\n")
        assert huge_pages.is_in_huge_pages(mapped)  # anonymous memory would not be in huge pages either
        del start


def test_no_cache_and_the_doctor(cache, tiny_dir, tmp_path, monkeypatch):
    flags = ["--model_name", str(tiny_dir), "--length", "2", "--prompt", "a"]
    assert command.main(interactive.interact_model, [*flags, "--no_cache"]) == 0
    assert not stored_files(cache)
    assert command.main(interactive.interact_model, flags) == 0
    assert len(stored_files(cache)) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))  # so that the user's cache is not cleared
    assert f"packed weights are cached in {cache}: 1 files, 0 MB" in diagnostics.describe_weight_cache(clear=False)
    assert diagnostics.describe_weight_cache(clear=True) == "no packed weights are cached"
    assert not stored_files(cache)
