import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core import files
from kamerton.core.errors import InputCorruptError, InputMissingError, UsageError


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(), max_size=4)))
def test_jsonl_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    files.write_jsonl(path, rows)
    assert files.read_jsonl(path, produced_by="dataset") == rows


@pytest.mark.parametrize(
    ("content", "place"), [('{"a":1}\n{"a":', ":2"), ("[]\n", ":1"), ('{}\n\n"x"\n', ":3")]
)
def test_a_bad_line_is_named(tmp_path, content, place):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputCorruptError) as caught:
        files.read_jsonl(path, produced_by="dataset")
    assert f"rows.jsonl{place}:" in caught.value.message
    assert "kamerton dataset" in caught.value.hint


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path):
    with pytest.raises(InputMissingError) as caught:
        files.read_json(tmp_path / "analysis.json", produced_by="analyze")
    assert caught.value.exit_code == 4
    assert "'analyze'" in caught.value.message


def test_bytes_that_are_no_text_are_corrupt_input(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputCorruptError, match="UTF-8"):
        files.read_json(path, produced_by="you")


def test_output_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"

    def fail():
        with files.output_directory(target) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not target.exists()
    assert list(tmp_path.iterdir()) == []
    with files.output_directory(target) as folder:
        (folder / "whole").write_text("x")
        assert not target.exists()
    assert [item.name for item in target.iterdir()] == ["whole"]


def test_output_directory_replaces_only_when_forced_and_only_at_the_end(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("x")
    with pytest.raises(UsageError, match="exists"), files.output_directory(target):
        pass
    with pytest.raises(RuntimeError), files.output_directory(target, force=True):
        raise RuntimeError
    assert (target / "old").exists()
    with files.output_directory(target, force=True) as folder:
        (folder / "new").write_text("x")
        assert (target / "old").exists()
    assert [item.name for item in target.iterdir()] == ["new"]
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from kamerton.core.files import output_directory
with output_directory(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    target = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1  # its partial
    with files.output_directory(target) as folder:
        (folder / "whole").write_text("x")
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_partials_of_living_processes_are_left_alone(tmp_path):
    host = files._owner().rpartition("-")[0]
    alive = tmp_path / f".out.partial-{host}-{os.getppid()}"
    elsewhere = tmp_path / ".out.partial-another_host-999999999"
    dead = tmp_path / f".out.partial-{host}-999999999"
    for folder in (alive, elsewhere, dead):
        folder.mkdir()
    files.remove_stale_partials(tmp_path / "out")
    assert alive.exists()
    assert elsewhere.exists()
    assert not dead.exists()


def test_a_replacement_killed_between_its_two_renames_is_undone(tmp_path):
    host = files._owner().rpartition("-")[0]
    aside = tmp_path / f".out.partial-old-{host}-999999999"
    aside.mkdir()
    (aside / "old").write_text("x")
    (tmp_path / f".out.partial-{host}-999999999").mkdir()
    files.remove_stale_partials(tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "old").exists()


_HOLDER = """
import sys, time
from pathlib import Path
from kamerton.core.files import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_freed_by_the_death_of_its_holder(tmp_path, capsys):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        holder.kill()
        with files.file_lock(path):
            assert time.monotonic() - started < 30
        holder.wait()
    capsys.readouterr()


def test_tree_hash_depends_on_names_and_contents_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x/1").write_text("one")
        (tmp_path / name / "2").write_text("two")
    assert files.sha256_tree(tmp_path / "a") == files.sha256_tree(tmp_path / "b")
    (tmp_path / "b/2").rename(tmp_path / "b/3")
    assert files.sha256_tree(tmp_path / "a") != files.sha256_tree(tmp_path / "b")


@given(st.dictionaries(st.text(), st.integers()))
def test_json_hash_ignores_the_order_of_keys(value):
    backwards = dict(reversed(list(value.items())))
    assert files.sha256_json(value) == files.sha256_json(backwards)


def test_paths_that_are_no_text_can_be_hashed():
    odd, other = (files.sha256_path(os.fsdecode(name)) for name in (b"/a/\xff", b"/a/\xfe"))
    assert len(odd) == 64
    assert odd != other


@pytest.mark.parametrize(
    ("output", "relation"),
    [("data/raw", "is"), ("data/x/../raw", "is"), ("data", "contains"), ("link", "is")],
)
def test_an_output_on_or_around_an_input_is_refused(tmp_path, output, relation):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data" / "raw")
    with pytest.raises(UsageError, match=f" {relation} .*raw") as caught:
        files.require_apart(tmp_path / output, tmp_path / "other", tmp_path / "data" / "raw")
    assert str(tmp_path / output) in str(caught.value)
    assert caught.value.hint


def test_an_output_beside_an_input_is_not(tmp_path):
    files.require_apart(tmp_path / "data" / "raw2", tmp_path / "data" / "raw", inside=False)
    files.require_apart(tmp_path / "raw" / "clips", tmp_path / "raw")
    with pytest.raises(UsageError, match="lies in"):
        files.require_apart(tmp_path / "raw" / "clips", tmp_path / "raw", inside=False)


@pytest.mark.parametrize("links", [True, False])
def test_a_file_gets_a_further_name(tmp_path, monkeypatch, links):
    source, path = tmp_path / "source", tmp_path / "path"
    source.write_bytes(b"new")
    path.write_bytes(b"old")
    if not links:

        def refuse(*_):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(files.os, "link", refuse)
    for _ in range(2):  # the second time both are names of one file already
        files.link_file(source, path)
        assert path.read_bytes() == b"new"
        assert (path.stat().st_ino == source.stat().st_ino) == links
        assert {item.name for item in tmp_path.iterdir()} == {"source", "path"}
    files.write_bytes(path, b"newer")
    assert source.read_bytes() == b"new"


def test_a_further_name_for_what_is_not_there_leaves_the_old_file(tmp_path):
    path = tmp_path / "path"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        files.link_file(tmp_path / "absent", path)
    assert path.read_bytes() == b"old"
