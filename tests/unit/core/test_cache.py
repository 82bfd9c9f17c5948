import os
import time

import pytest

from kamerton.core import files
from kamerton.core.cache import WorkCache
from kamerton.core.errors import UsageError

KEY, OTHER = "ab" * 16, "cd" * 16


def make(cache, key=KEY, text="x", kind="segment"):
    with cache.make(kind, key) as folder:
        (folder / "result").write_text(text)


def test_an_entry_is_found_when_it_is_whole(tmp_path):
    cache = WorkCache(tmp_path)
    assert cache.find("segment", KEY) is None
    with cache.make("segment", KEY) as folder:
        (folder / "result").write_text("x")
        assert cache.find("segment", KEY) is None
    assert (cache.find("segment", KEY) / "result").read_text() == "x"
    assert cache.find("transcribe", KEY) is None


def test_work_that_fails_leaves_nothing(tmp_path):
    cache = WorkCache(tmp_path)

    def fail():
        with cache.make("segment", KEY) as folder:
            (folder / "result").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert cache.find("segment", KEY) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_first_of_two_writers_wins(tmp_path):
    cache = WorkCache(tmp_path)
    with cache.make("segment", KEY) as folder:
        (folder / "result").write_text("slow")
        os.rename(folder, folder.with_name("aside"))
        folder.mkdir()
        make(cache, text="fast")
        folder.mkdir(exist_ok=True)
        (folder / "result").write_text("slow")
    assert (cache.find("segment", KEY) / "result").read_text() == "fast"


def test_only_what_was_long_unused_is_pruned(tmp_path):
    cache = WorkCache(tmp_path)
    make(cache, KEY)
    make(cache, OTHER)
    old = time.time() - 10 * 86_400
    for key in (KEY, OTHER):
        os.utime(cache.find("segment", key), (old, old))
    cache.find("segment", OTHER)  # is used
    assert cache.sizes() == {"segment": (2, 2)}
    assert cache.prune(9) == 1
    assert cache.find("segment", KEY) is None
    assert cache.find("segment", OTHER)


@pytest.mark.parametrize("key", ["", "../../etc", "AB" * 16, "ab/cd"])
def test_a_key_cannot_lead_out_of_the_cache(tmp_path, key):
    with pytest.raises(ValueError, match="no place"):
        WorkCache(tmp_path).find("segment", key)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be written"),
        WorkCache(tmp_path / "file").make("segment", KEY),
    ):
        pass


def test_an_entry_that_is_not_whole_can_be_made_again(tmp_path):
    cache = WorkCache(tmp_path)
    make(cache, text="half")
    cache.discard("segment", KEY)
    cache.discard("segment", KEY)  # another process was faster
    assert cache.find("segment", KEY) is None
    make(cache, text="whole")
    assert (cache.find("segment", KEY) / "result").read_text() == "whole"


def test_what_killed_processes_left_is_pruned_too(tmp_path):
    cache = WorkCache(tmp_path)
    make(cache)
    leftover = cache.place("segment", KEY).with_name(f".{OTHER}.partial-elsewhere-7")
    leftover.mkdir()
    (leftover / "clips.tar").write_bytes(b"x")
    assert cache.prune(unused_days=1) == 0
    assert leftover.exists()
    old = time.time() - 10 * 86_400
    os.utime(leftover, (old, old))
    assert cache.prune(unused_days=1) == 0
    assert not leftover.exists()
    assert cache.find("segment", KEY) is not None


def test_what_is_in_use_is_not_pruned(tmp_path):
    cache = WorkCache(tmp_path)
    make(cache)
    assert cache.prune(0) == 0
    old = time.time() - 7_300
    other = "1" * 64
    with cache.make("segment", other) as under_way:
        theirs = under_way.with_name(f".{KEY}.partial-{files._owner().rpartition('-')[0]}-1")
        theirs.mkdir()  # of a process that runs
        os.utime(theirs, (old, old))
        cache.prune(0)
        assert theirs.exists()
    os.utime(cache.place("segment", KEY), (old, old))
    assert cache.prune(0) == 1


def test_sizes_pass_over_what_vanishes(tmp_path, monkeypatch):
    cache = WorkCache(tmp_path)
    make(cache)
    (place,) = (cache.place("segment", KEY),)
    monkeypatch.setattr(cache, "_entries", lambda: [place, cache.place("segment", "2" * 64)])
    (place / "dangling").symlink_to("nothing")
    assert cache.sizes()["segment"][1] == 1
