"""The downloader against a local web server."""

import hashlib
import re
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from file_server import hang_up, other_content, serve, short_body, status

import download_model
from gpt2 import generate
from gpt2.cli import command as cli
from gpt2.cli import progress_bars
from gpt2.errors import GPT2Error
from gpt2.formats import download, model_dir, transfer
from gpt2.formats.openai import checkpoint
from gpt2.hparams import load_hparams

DATA = download.DATA_FILE


@pytest.fixture
def files(tiny_dir, monkeypatch, tmp_path):
    """Return the tiny model's files, which pass for those of 355M; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_dir, "CHECKOUT", tmp_path / "checkout")
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setitem(model_dir.RELEASED_MODELS, "355M", load_hparams(tiny_dir / "hparams.json"))
    for name in download.SHA256:
        monkeypatch.setitem(download.SHA256, name, hashlib.sha256((tiny_dir / name).read_bytes()).hexdigest())
    return {f"models/345M/{path.name}": path.read_bytes() for path in tiny_dir.iterdir()} | {
        f"models/345M/{download.GRAPH_FILE}": b"graph"
    }


@pytest.fixture
def server(files):
    with serve(files) as server:
        yield server


def fetch(*servers, name="345M"):
    urls = ",".join(server if isinstance(server, str) else server.url for server in servers)
    return cli.main(download_model.download_model, [name, "--base_url", urls])


def assert_complete(tmp_path, files, name="345M"):
    downloaded = {path.name: path.read_bytes() for path in (tmp_path / "checkout/models" / name).iterdir()}
    assert downloaded == {path.split("/")[-1]: content for path, content in files.items()}


def test_a_download_has_all_seven_files_and_loads(server, files, tmp_path, capsys):
    assert fetch(server) == 0
    assert_complete(tmp_path, files)
    assert [path.split("/")[-1] for path, _ in server.requests] == list(download.FILES)
    assert generate.load("345M").hparams.n_ctx == 32
    err = capsys.readouterr().err
    assert f"Fetching {DATA}: 100%" in err
    assert err.endswith("345M is complete in " + str(tmp_path / "checkout/models/345M") + "\n")


def show_each_line(err):
    return [line.strip() for line in err.replace("\r", "\n").splitlines() if line.strip()]


def test_a_full_bar_says_that_the_checksums_are_verified(server, files, capsys, monkeypatch):
    """Between the last byte and the final name, the bar of each file says what takes so long."""
    shown_during_checks = {}
    find_problem = download.find_problem

    def slow_check(path, name, hparams):
        shown_during_checks.setdefault(name, show_each_line(capsys.readouterr().err)[-1])
        return find_problem(path, name, hparams)

    monkeypatch.setattr(download, "find_problem", slow_check)
    assert fetch(server) == 0
    for name in download.FILES:
        assert re.match(rf"Verifying {re.escape(name)}: 100%", shown_during_checks[name]), shown_during_checks
    shown_during_checks.clear()
    assert fetch(server) == 0  # the files exist
    assert shown_during_checks == {name: f"Verifying {name}" for name in download.FILES}


@pytest.mark.parametrize("fault", ["damaged", "partial", "retried", "without length"])
def test_the_check_of_a_second_attempt_is_shown_too(server, files, tmp_path, capsys, fault):
    content = files[f"models/345M/{DATA}"]
    damaged = bytes([content[0] ^ 1]) + content[1:]
    if fault == "partial":
        folder = tmp_path / "checkout/models/345M"
        folder.mkdir(parents=True)
        (folder / f"{DATA}.part").write_bytes(content[:100])
    else:
        replaced = {"damaged": other_content(damaged), "without length": other_content(damaged, length=False)}
        server.faults = {f"models/345M/{DATA}": [replaced.get(fault, status(500))]}
    with serve(files) as second:
        assert fetch(server, second) == 0
    lines = show_each_line(capsys.readouterr().err)
    verified = [i for i, line in enumerate(lines) if line.startswith(f"Verifying {DATA}")]
    assert verified and lines[verified[-1] + 1].startswith(f"Fetching {DATA}: "), "the last title of a complete file"


def test_models_in_the_working_directory_is_preferred(server, files, tmp_path):
    (tmp_path / "models").mkdir()
    assert fetch(server) == 0
    assert (tmp_path / "models/345M/checkpoint").exists() and not (tmp_path / "checkout").exists()


def test_both_names_are_tried_and_the_folder_has_the_typed_name(server, files, tmp_path):
    assert fetch(server, name="355M") == 0
    assert_complete(tmp_path, files, "355M")


def test_complete_files_are_not_fetched_again(server, files, tmp_path):
    fetch(server)
    (tmp_path / "checkout/models/345M" / DATA).unlink()
    (tmp_path / "checkout/models/345M/vocab.bpe").write_text("damaged")
    server.requests.clear()
    assert fetch(server) == 0
    assert [path.split("/")[-1] for path, _ in server.requests] == [DATA, "vocab.bpe"]
    assert_complete(tmp_path, files)


def test_server_errors_are_retried(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [status(500), status(503), status(429)]}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_retries_end_after_four_attempts(server, capsys):
    server.faults = {"models/345M/checkpoint": [status(500)] * 100}
    assert fetch(server) == 1
    err = capsys.readouterr().err
    assert "checkpoint of 345M could not be downloaded" in err and "500 Internal Server Error (4 attempts)" in err


def test_the_error_for_404_names_every_address(server, files, capsys):
    files.clear()
    assert fetch(server) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    for name in ("345M", "355M"):
        assert f"{server.url}/models/{name}/checkpoint: 404 Not Found" in err


def test_the_next_server_is_tried(server, files, tmp_path):
    with serve({}) as empty:
        assert fetch("http://127.0.0.1:9", empty, server.url + "/models/") == 0
    assert_complete(tmp_path, files)


def test_a_broken_connection_is_resumed(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [short_body(100_000, server)]}
    assert fetch(server) == 0
    assert (f"models/345M/{DATA}", f"bytes={transfer.CHUNK_BYTES}-") in server.requests
    assert_complete(tmp_path, files)


def test_a_missing_answer_is_retried(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [hang_up, hang_up]}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def write_partial_file(tmp_path, content, version):
    """Write a partial file and its version, as an interrupted run leaves them."""
    part = tmp_path / "checkout/models/345M" / (DATA + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    transfer.version_file(part).write_bytes(version.encode("latin-1"))


def test_a_partial_file_of_an_earlier_run_is_resumed(server, files, tmp_path):
    content = files[f"models/345M/{DATA}"]
    write_partial_file(tmp_path, content[:5000], server.tag_of(content))
    assert fetch(server) == 0
    assert requested_ranges(server) == ["bytes=5000-"]
    assert_complete(tmp_path, files)


def requested_ranges(server):
    """Return the Range headers of the requests for the weights."""
    return [range_header for path, range_header in server.requests if path.endswith(DATA)]


@pytest.mark.parametrize("if_range", [True, False])
def test_parts_of_two_versions_are_not_joined(server, files, tmp_path, if_range):
    """Tries a server that respects If-Range, and one that sends the range of the new version."""
    server.if_range = if_range
    write_partial_file(tmp_path, b"x" * 5000, server.tag_of(b"the file of yesterday"))
    assert fetch(server) == 0
    assert requested_ranges(server) == ["bytes=5000-"] + [None] * (not if_range)
    assert_complete(tmp_path, files)


def test_a_file_that_changes_during_the_download(tmp_path, server, files):
    """The connection breaks, and then the server has another file; it sends no MD5."""
    server.md5 = False
    url, path = f"{server.url}/models/345M/{DATA}", tmp_path / "file"
    before = files[f"models/345M/{DATA}"]
    after = bytes(reversed(before))

    def change(handler, content):
        files[f"models/345M/{DATA}"] = after
        return short_body(100_000, server)(handler, before)

    server.faults = {f"models/345M/{DATA}": [change]}
    transfer.fetch(url, path, lambda part: "")
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    "date, range_header", [("", None), ("Sat, 01 Jan 2022 00:00:00 GMT", f"bytes={transfer.CHUNK_BYTES}-")]
)
@pytest.mark.parametrize("tag", ["", 'W/"{}"'])
def test_a_download_without_a_strong_tag_resumes_by_date_or_restarts(server, files, tmp_path, tag, date, range_header):
    server.tag, server.date = tag, date
    server.faults = {f"models/345M/{DATA}": [short_body(100_000, server)]}
    assert fetch(server) == 0
    assert requested_ranges(server) == [None, range_header]
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("version", ["", '"a\nb"', "\xff\xfe", " " * 9])
def test_an_invalid_version_is_ignored(server, files, tmp_path, version):
    write_partial_file(tmp_path, files[f"models/345M/{DATA}"][:5000], version)
    assert fetch(server) == 0
    assert requested_ranges(server) == [None]
    assert_complete(tmp_path, files)


def test_a_partial_file_that_is_already_complete(server, files, tmp_path):
    content = files[f"models/345M/{DATA}"]
    write_partial_file(tmp_path, content, server.tag_of(content))
    assert fetch(server) == 0
    assert requested_ranges(server) == [f"bytes={len(content)}-"]
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("content", [b"x" * 5000, b"x" * 10_000_000])
def test_a_partial_file_with_other_content_is_discarded(server, files, tmp_path, content):
    write_partial_file(tmp_path, content, server.tag_of(files[f"models/345M/{DATA}"]))
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_a_server_without_ranges(server, files, tmp_path):
    server.ranges = False
    content = files[f"models/345M/{DATA}"]
    write_partial_file(tmp_path, content[:5000], server.tag_of(content))
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_no_content_length(server, files, tmp_path):
    server.faults = {path: [other_content(content, length=False)] for path, content in files.items()}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("name", [DATA, "vocab.bpe", "encoder.json", "hparams.json", "checkpoint", "model.ckpt.index"])
def test_an_error_page_with_status_200_is_rejected(server, tmp_path, capsys, name):
    server.faults = {f"models/345M/{name}": [other_content(b"<?xml version='1.0'?><Error>")] * 9}
    assert fetch(server) == 1
    assert f"{name} of 345M could not be downloaded" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "checkout/models/345M" / name).exists()


def test_a_wrong_md5_is_detected(server, files, tmp_path, capsys):
    content = bytearray(files[f"models/345M/{DATA}"])
    correct_md5 = hashlib.md5(content).digest()
    content[100] ^= 1
    server.faults = {f"models/345M/{DATA}": [other_content(bytes(content), md5=correct_md5)]}
    assert fetch(server) == 1
    assert "its MD5 differs from the MD5 that the server sent" in capsys.readouterr().err
    assert not (tmp_path / "checkout/models/345M" / DATA).exists()
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def damage(content):
    """Flip one bit in the middle."""
    return content[:70_000] + bytes([content[70_000] ^ 1]) + content[70_001:]


@pytest.mark.parametrize(
    "name, value", [("x-goog-hash", "md5=abc"), ("x-goog-hash", "md5=é"), ("Content-MD5", "0" * 32)]
)
def test_an_invalid_md5_is_ignored(server, files, tmp_path, name, value):
    server.md5 = False
    server.send_version = lambda handler, content: handler.send_header(name, value)
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_damaged_weights_of_the_right_size_are_detected(server, files, tmp_path, capsys):
    """The checksums in the index reveal the damage, without any MD5 from the server."""
    server.md5 = False
    path = f"models/345M/{DATA}"
    server.faults = {path: [other_content(damage(files[path]))]}
    assert fetch(server) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{DATA} of 345M could not be downloaded: .* the checksum of model/.* does not match", err)
    assert not (tmp_path / "checkout/models/345M" / DATA).exists()
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_only_damaged_files_are_fetched_again(server, files, tmp_path):
    fetch(server)
    for name in (DATA, "model.ckpt.index", "hparams.json", "checkpoint", "encoder.json", "vocab.bpe"):
        file = tmp_path / "checkout/models/345M" / name
        content = file.read_bytes()
        file.write_bytes(damage(content) if name == DATA else content[:9])
        server.requests.clear()
        assert fetch(server) == 0
        assert [path.split("/")[-1] for path, _ in server.requests] == [name]
        assert_complete(tmp_path, files)


def test_unreadable_files_are_not_fetched_again(server, tmp_path, monkeypatch, capsys):
    fetch(server)
    server.requests.clear()

    def failing_read(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "read_into", failing_read)
    assert fetch(server) == 1
    assert f"{DATA} cannot be read: Input/output error\n" in capsys.readouterr().err
    assert server.requests == []


def test_two_downloads_at_once(server, files, tmp_path, capsys):
    """The second download is rejected, and the first one's file is correct."""
    has_started, may_continue = threading.Event(), threading.Event()

    def slow(handler, content):
        has_started.set()
        assert may_continue.wait(60)
        return False

    server.faults = {f"models/345M/{DATA}": [slow]}
    folders = []
    first = threading.Thread(target=lambda: folders.append(download.download_model("345M", tmp_path, [server.url])))
    first.start()
    assert has_started.wait(60)
    with pytest.raises(
        GPT2Error, match=f"{DATA}.part is being written by another process; wait until that process ends"
    ):
        download.download_model("345M", tmp_path, [server.url])
    may_continue.set()
    first.join()
    assert folders and (tmp_path / "345M" / DATA).read_bytes() == files[f"models/345M/{DATA}"]


def test_a_killed_download_does_not_block_the_next(server, files, tmp_path):
    write_partial_file(tmp_path, b"", "")
    code = f"""
import sys, time
from pathlib import Path
from gpt2 import files
with files.open_exclusive(Path({str(tmp_path / "checkout/models/345M" / (DATA + ".part"))!r})):
    print("open", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        assert fetch(server) == 1
        other.kill()
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_a_failure_leaves_no_empty_folder(server, files, tmp_path, monkeypatch):
    files.clear()
    assert fetch(server) == 1
    assert not (tmp_path / "checkout").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    assert fetch(server) == 1
    assert not (tmp_path / "checkout").exists()
    (tmp_path / "models").mkdir()
    assert fetch(server) == 1
    assert (tmp_path / "models").is_dir() and not list((tmp_path / "models").iterdir())


def test_a_full_disk_is_named_and_the_partial_file_is_kept(server, tmp_path, monkeypatch, capsys):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.files, "move_into_place", disk_full)
    assert fetch(server) == 1
    assert "345M/checkpoint cannot be written: No space left on device\n" in capsys.readouterr().err
    assert (tmp_path / "checkout/models/345M/checkpoint.part").stat().st_size


def test_the_graph_is_optional(server, files, tmp_path):
    del files[f"models/345M/{download.GRAPH_FILE}"]
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_an_interrupted_download_leaves_only_partial_files(server, tmp_path, monkeypatch):
    def interrupted(self, n):
        if n:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress_bars.tqdm, "update", interrupted)
    assert fetch(server) == 130
    names = {path.name for path in (tmp_path / "checkout/models/345M").iterdir()}
    assert names == {"checkpoint.part", "checkpoint.part.version"}


def test_a_lack_of_disk_space_is_detected_before_the_download(server, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    assert fetch(server) == 1
    assert "345M needs 9 MB more, but its disk has only 1 MB free" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "You must enter the model name as a parameter, e.g.: download_model.py 124M"),
        (["125M"], "there is no model called '125M'; use one of 124M (or 117M), 355M (or 345M), 774M, 1558M"),
        (["--bogus", "1"], "there is no flag --bogus"),
    ],
)
def test_bad_usage(argv, message, capsys):
    assert cli.main(download_model.download_model, argv) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_folder_that_cannot_be_written(server, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(download_model.download_model, ["345M", "--models_dir", str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_https_certificates_are_checked(tmp_path, monkeypatch):
    """requests verifies certificates by default; nothing here changes that."""
    options_seen = {}

    def get(url, **options):
        options_seen.update(options)
        raise transfer.requests.exceptions.SSLError("certificate verify failed")

    monkeypatch.setattr(transfer.requests, "get", get)
    with pytest.raises(transfer.UnavailableError, match="certificate verify failed"):
        transfer.fetch("https://127.0.0.1/x", tmp_path / "x", lambda path: "")
    assert "verify" not in options_seen
