import json
import os
import time
from pathlib import Path

import pytest

from kamerton.core.workers import Workers
from kamerton.data.file_index import FileIndex, FileState, KnownFile, now_ns

SECOND = 1_000_000_000


def known(path, *, looked_after=10.0, sha256="ab" * 32):
    state = FileState.of(path)
    last = max(state.modified_ns, state.changed_ns)
    return KnownFile(state, last + round(looked_after * SECOND), sha256, 12.5)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "raw"
    place.mkdir()
    for name in ("a.wav", "b.wav"):
        (place / name).write_text(name)
    return place


def index_of(folder):
    return FileIndex(folder.parent / "cache", folder)


def learn(folder, *names, **options):
    index = index_of(folder)
    for name in names:
        index.add(name, known(folder / name, **options))
    index.save(["a.wav", "b.wav"])


def find(folder, name):
    return index_of(folder).find(name, FileState.of(folder / name))


def test_what_did_not_change_is_known(folder):
    learn(folder, "a.wav")
    assert find(folder, "a.wav") == known(folder / "a.wav")
    assert find(folder, "b.wav") is None


def test_a_file_counts_as_changed_by_size_time_or_inode(folder):
    path = folder / "a.wav"
    learn(folder, "a.wav")
    os.utime(path, (1e9, 1e9))  # its own time of change moves as well
    assert find(folder, "a.wav") is None
    learn(folder, "a.wav")
    path.write_text("other")
    assert find(folder, "a.wav") is None
    learn(folder, "a.wav")
    status = path.stat()
    other = folder / "other"
    other.write_text("OTHER")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # same size, same time, another file
    assert find(folder, "a.wav") is None


@pytest.mark.parametrize(("age", "trusted"), [(0.0, False), (1.9, False), (2.1, True)])
def test_files_that_were_just_written_are_looked_at_again(folder, age, trusted):
    learn(folder, "a.wav", looked_after=age)
    assert (find(folder, "a.wav") is not None) == trusted


def test_a_file_written_now_is_not_certain(folder):
    (folder / "a.wav").write_text("new")
    assert not KnownFile(FileState.of(folder / "a.wav"), now_ns(), "", 0.0).is_certain


def test_what_is_gone_is_forgotten_and_what_others_learnt_is_kept(folder):
    learn(folder, "a.wav")
    mine = index_of(folder)
    learn(folder, "b.wav")
    mine.add("a.wav", known(folder / "a.wav", sha256="cd" * 32))
    mine.save(["a.wav", "b.wav"])
    assert find(folder, "b.wav") is not None
    assert find(folder, "a.wav").sha256 == "cd" * 32
    other = index_of(folder)
    other.save(["b.wav"])
    assert find(folder, "a.wav") is None
    assert find(folder, "b.wav") is not None


def test_folders_do_not_share_an_index(folder):
    learn(folder, "a.wav")
    moved = folder.rename(folder.with_name("moved"))
    assert find(moved, "a.wav") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format_version": 0, "files": {}}', '{"files": 3}', "\x00\xff"]
)
def test_a_damaged_index_is_no_index(folder, text):
    learn(folder, "a.wav")
    (path,) = (folder.parent / "cache/files").iterdir()
    path.write_text(text)
    assert find(folder, "a.wav") is None
    learn(folder, "a.wav")
    assert find(folder, "a.wav") is not None


def test_a_damaged_row_is_no_row_of_an_index(folder):
    learn(folder, "a.wav", "b.wav")
    (path,) = (folder.parent / "cache/files").iterdir()
    values = json.loads(path.read_text())
    values["files"]["a.wav"] = [1, 2]
    path.write_text(json.dumps(values))
    assert find(folder, "a.wav") is None


def test_without_a_cache_it_lasts_as_long_as_the_run(folder):
    index = FileIndex(None, folder)
    index.add("a.wav", known(folder / "a.wav"))
    index.save(["a.wav"])
    assert index.find("a.wav", FileState.of(folder / "a.wav")) is not None


def write_often(task, tick):
    del tick
    folder, name = task
    for _ in range(20):
        learn(folder, name)


def test_many_writers_leave_a_whole_index(folder):
    with Workers(3) as team:
        list(team.run(write_often, [(folder, "a.wav"), (folder, "b.wav"), (folder, "a.wav")]))
    (path,) = (folder.parent / "cache/files").iterdir()
    assert json.loads(path.read_text())["files"].keys() <= {"a.wav", "b.wav"}


def test_it_is_fast_for_ten_thousand_files(folder):
    index = index_of(folder)
    one = known(folder / "a.wav")
    names = [f"{number}.wav" for number in range(10_000)]
    for name in names:
        index.add(name, one)
    started = time.process_time()
    index.save(names)
    again = index_of(folder)
    assert all(again.find(name, one.state) for name in names)
    assert time.process_time() - started < 2.0


def test_a_folder_whose_name_is_no_text_has_an_index_of_its_own(tmp_path):
    names = [os.fsdecode(b"/a/" + byte) for byte in (b"\xfe", b"\xff")]
    assert len({FileIndex(tmp_path, Path(name))._path for name in names}) == 2
