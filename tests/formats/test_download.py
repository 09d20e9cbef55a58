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
    """The tiny model's files, which pass for those of 355M here; the working directory is an empty one."""
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
    found = {path.name: path.read_bytes() for path in (tmp_path / "checkout/models" / name).iterdir()}
    assert found == {path.split("/")[-1]: content for path, content in files.items()}


def test_all_seven_files_and_a_model_that_loads(server, files, tmp_path, capsys):
    assert fetch(server) == 0
    assert_complete(tmp_path, files)
    assert [path.split("/")[-1] for path, _ in server.requests] == list(download.FILES)
    assert generate.load("345M").hparams.n_ctx == 32
    err = capsys.readouterr().err
    assert f"Fetching {DATA}: 100%" in err
    assert err.endswith("345M is complete in " + str(tmp_path / "checkout/models/345M") + "\n")


def test_it_goes_into_the_working_directory_if_that_has_models(server, files, tmp_path):
    (tmp_path / "models").mkdir()
    assert fetch(server) == 0
    assert (tmp_path / "models/345M/checkpoint").exists() and not (tmp_path / "checkout").exists()


def test_either_name_is_found_on_the_server_and_lands_where_it_was_typed(server, files, tmp_path):
    assert fetch(server, name="355M") == 0
    assert_complete(tmp_path, files, "355M")


def test_what_is_complete_is_not_fetched_again(server, files, tmp_path):
    fetch(server)
    (tmp_path / "checkout/models/345M" / DATA).unlink()
    (tmp_path / "checkout/models/345M/vocab.bpe").write_text("damaged")
    server.requests.clear()
    assert fetch(server) == 0
    assert [path.split("/")[-1] for path, _ in server.requests] == [DATA, "vocab.bpe"]
    assert_complete(tmp_path, files)


def test_a_server_error_is_tried_again(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [status(500), status(503), status(429)]}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_a_server_that_stays_broken_is_given_up(server, capsys):
    server.faults = {"models/345M/checkpoint": [status(500)] * 100}
    assert fetch(server) == 1
    err = capsys.readouterr().err
    assert "checkpoint of 345M could not be downloaded" in err and "500 Internal Server Error (4 attempts)" in err


def test_404_is_named_with_every_address_that_was_tried(server, files, capsys):
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


def test_a_broken_connection_goes_on_where_it_ended(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [short_body(100_000, server)]}
    assert fetch(server) == 0
    assert (f"models/345M/{DATA}", f"bytes={transfer.CHUNK_BYTES}-") in server.requests
    assert_complete(tmp_path, files)


def test_an_answer_that_does_not_come_is_asked_for_again(server, files, tmp_path):
    server.faults = {f"models/345M/{DATA}": [hang_up, hang_up]}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def begin(tmp_path, content, version):
    """A part as an earlier run left it, of that version of the file."""
    part = tmp_path / "checkout/models/345M" / (DATA + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    transfer.version_file(part).write_bytes(version.encode("latin-1"))


def test_a_part_of_an_earlier_run_is_resumed(server, files, tmp_path):
    content = files[f"models/345M/{DATA}"]
    begin(tmp_path, content[:5000], server.tag_of(content))
    assert fetch(server) == 0
    assert requested(server) == ["bytes=5000-"]
    assert_complete(tmp_path, files)


def requested(server):
    """The ranges of the weights that were asked for."""
    return [asked for path, asked in server.requests if path.endswith(DATA)]


@pytest.mark.parametrize("if_range", [True, False])
def test_a_part_of_another_version_is_not_glued_to_this_one(server, files, tmp_path, if_range):
    """Whether the server heeds If-Range, or sends the other file's end under its own tag."""
    server.if_range = if_range
    begin(tmp_path, b"x" * 5000, server.tag_of(b"the file of yesterday"))
    assert fetch(server) == 0
    assert requested(server) == ["bytes=5000-"] + [None] * (not if_range)
    assert_complete(tmp_path, files)


def test_a_file_that_changes_while_it_is_fetched(tmp_path, server, files):
    """The connection breaks off, and what the server has then is another file; without any sum of it."""
    server.md5 = False
    url, path = f"{server.url}/models/345M/{DATA}", tmp_path / "file"
    before, after = files[f"models/345M/{DATA}"], bytes(reversed(files[f"models/345M/{DATA}"]))

    def change(handler, content):
        files[f"models/345M/{DATA}"] = after
        return short_body(100_000, server)(handler, before)

    server.faults = {f"models/345M/{DATA}": [change]}
    transfer.fetch(url, path, lambda part: "")
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    "date, asked", [("", None), ("Sat, 01 Jan 2022 00:00:00 GMT", f"bytes={transfer.CHUNK_BYTES}-")]
)
@pytest.mark.parametrize("tag", ["", 'W/"{}"'])
def test_without_a_strong_tag_the_date_will_do_and_without_both_it_starts_anew(
    server, files, tmp_path, tag, date, asked
):
    server.tag, server.date = tag, date
    server.faults = {f"models/345M/{DATA}": [short_body(100_000, server)]}
    assert fetch(server) == 0
    assert requested(server) == [None, asked]
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("version", ["", '"a\nb"', "\xff\xfe", " " * 9])
def test_a_version_that_cannot_be_is_none(server, files, tmp_path, version):
    begin(tmp_path, files[f"models/345M/{DATA}"][:5000], version)
    assert fetch(server) == 0
    assert requested(server) == [None]
    assert_complete(tmp_path, files)


def test_a_part_that_is_already_whole(server, files, tmp_path):
    content = files[f"models/345M/{DATA}"]
    begin(tmp_path, content, server.tag_of(content))
    assert fetch(server) == 0
    assert requested(server) == [f"bytes={len(content)}-"]
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("content", [b"x" * 5000, b"x" * 10_000_000])
def test_a_part_of_something_else_is_thrown_away(server, files, tmp_path, content):
    begin(tmp_path, content, server.tag_of(files[f"models/345M/{DATA}"]))
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_a_server_without_ranges(server, files, tmp_path):
    server.ranges = False
    content = files[f"models/345M/{DATA}"]
    begin(tmp_path, content[:5000], server.tag_of(content))
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_no_content_length(server, files, tmp_path):
    server.faults = {path: [other_content(content, length=False)] for path, content in files.items()}
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


@pytest.mark.parametrize("name", [DATA, "vocab.bpe", "encoder.json", "hparams.json", "checkpoint", "model.ckpt.index"])
def test_an_error_page_with_status_200_is_not_taken_for_the_file(server, tmp_path, capsys, name):
    server.faults = {f"models/345M/{name}": [other_content(b"<?xml version='1.0'?><Error>")] * 9}
    assert fetch(server) == 1
    assert f"{name} of 345M could not be downloaded" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "checkout/models/345M" / name).exists()


def test_a_wrong_checksum_is_noticed(server, files, tmp_path, capsys):
    content = bytearray(files[f"models/345M/{DATA}"])
    right = hashlib.md5(content).digest()
    content[100] ^= 1
    server.faults = {f"models/345M/{DATA}": [other_content(bytes(content), md5=right)]}
    assert fetch(server) == 1
    assert "its MD5 differs from the one that the server sent" in capsys.readouterr().err
    assert not (tmp_path / "checkout/models/345M" / DATA).exists()
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def damaged(content):
    """One bit of the middle."""
    return content[:70_000] + bytes([content[70_000] ^ 1]) + content[70_001:]


@pytest.mark.parametrize(
    "name, said", [("x-goog-hash", "md5=abc"), ("x-goog-hash", "md5=é"), ("Content-MD5", "0" * 32)]
)
def test_a_checksum_that_is_none_is_no_obstacle(server, files, tmp_path, name, said):
    server.md5 = False
    server.send_version = lambda handler, content: handler.send_header(name, said)
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_damaged_weights_are_noticed_though_they_are_as_long_as_they_should_be(server, files, tmp_path, capsys):
    """By their checksums in the index, whatever the server says of them."""
    server.md5 = False
    path = f"models/345M/{DATA}"
    server.faults = {path: [other_content(damaged(files[path]))]}
    assert fetch(server) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{DATA} of 345M could not be downloaded: .* the checksum of model/.* does not match", err)
    assert not (tmp_path / "checkout/models/345M" / DATA).exists()
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_what_was_damaged_since_is_fetched_again_and_nothing_else(server, files, tmp_path):
    fetch(server)
    for name in (DATA, "model.ckpt.index", "hparams.json", "checkpoint", "encoder.json", "vocab.bpe"):
        path = tmp_path / "checkout/models/345M" / name
        content = path.read_bytes()
        path.write_bytes(damaged(content) if name == DATA else content[:9])
        server.requests.clear()
        assert fetch(server) == 0
        assert [asked.split("/")[-1] for asked, _ in server.requests] == [name]
        assert_complete(tmp_path, files)


def test_what_cannot_be_read_is_not_fetched_again(server, tmp_path, monkeypatch, capsys):
    fetch(server)
    server.requests.clear()

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "read_into", broken)
    assert fetch(server) == 1
    assert f"{DATA} cannot be read: Input/output error\n" in capsys.readouterr().err
    assert server.requests == []


def test_two_downloads_at_once(server, files, tmp_path, capsys):
    """The second one says so, and the first one's file is right."""
    fetching, going_on = threading.Event(), threading.Event()

    def slow(handler, content):
        fetching.set()
        assert going_on.wait(60)
        return False

    server.faults = {f"models/345M/{DATA}": [slow]}
    ended = []
    first = threading.Thread(target=lambda: ended.append(download.download_model("345M", tmp_path, [server.url])))
    first.start()
    assert fetching.wait(60)
    with pytest.raises(GPT2Error, match=f"{DATA}.part is being written by another process; wait until that has ended"):
        download.download_model("345M", tmp_path, [server.url])
    going_on.set()
    first.join()
    assert ended and (tmp_path / "345M" / DATA).read_bytes() == files[f"models/345M/{DATA}"]


def test_a_download_that_was_killed_stands_in_nobodys_way(server, files, tmp_path):
    begin(tmp_path, b"", "")
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


def test_a_full_disk_is_named_and_what_came_is_kept(server, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.files, "move_into_place", full)
    assert fetch(server) == 1
    assert "345M/checkpoint cannot be written: No space left on device\n" in capsys.readouterr().err
    assert (tmp_path / "checkout/models/345M/checkpoint.part").stat().st_size


def test_the_graph_is_not_missed(server, files, tmp_path):
    del files[f"models/345M/{download.GRAPH_FILE}"]
    assert fetch(server) == 0
    assert_complete(tmp_path, files)


def test_an_interrupted_download_never_looks_complete(server, tmp_path, monkeypatch):
    def interrupted(self, n):
        if n:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress_bars.tqdm, "update", interrupted)
    assert fetch(server) == 130
    left = {path.name for path in (tmp_path / "checkout/models/345M").iterdir()}
    assert left == {"checkpoint.part", "checkpoint.part.version"}


def test_a_disk_without_room_is_noticed_before(server, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    assert fetch(server) == 1
    assert "345M needs 9 MB more, but its disk has only 1 MB free" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "You must enter the model name as a parameter, e.g.: download_model.py 124M"),
        (["125M"], "there is no model called '125M'; there are 124M (or 117M), 355M (or 345M), 774M, 1558M"),
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
    """requests verifies unless told otherwise; nothing here tells it."""
    seen = {}

    def get(url, **options):
        seen.update(options)
        raise transfer.requests.exceptions.SSLError("certificate verify failed")

    monkeypatch.setattr(transfer.requests, "get", get)
    with pytest.raises(transfer.UnavailableError, match="certificate verify failed"):
        transfer.fetch("https://127.0.0.1/x", tmp_path / "x", lambda path: "")
    assert "verify" not in seen
