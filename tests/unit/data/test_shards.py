import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.data.shards import Placement, read_member, write_shards

PAYLOADS = st.lists(st.binary(max_size=1500), min_size=1, max_size=12)


def members(payloads):
    return [(f"{number:04x}.flac", payload) for number, payload in enumerate(payloads)]


@given(PAYLOADS, st.integers(1, 5))
def test_payloads_come_back_by_placement_and_by_tar(tmp_path_factory, payloads, per_shard):
    folder = tmp_path_factory.mktemp("shards")
    named = members(payloads)
    placements = list(write_shards(folder, "voice", named, per_shard=per_shard))
    assert [read_member(folder, placement) for placement in placements] == payloads
    unpacked = []
    for shard in sorted(folder.iterdir()):
        with tarfile.open(shard) as tar:
            unpacked += [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]
            assert len(tar.getmembers()) <= per_shard
    assert unpacked == named
    assert placements[-1].shard == f"voice-{(len(payloads) - 1) // per_shard:04d}.tar"


@given(PAYLOADS)
def test_equal_members_give_equal_bytes(tmp_path_factory, payloads):
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for folder in (one, other):
        list(write_shards(folder, "v", members(payloads), per_shard=100))
    assert (one / "v-0000.tar").read_bytes() == (other / "v-0000.tar").read_bytes()


def test_more_members_leave_full_shards_as_they_are(tmp_path):
    payloads = [bytes([n]) * 100 for n in range(10)]
    list(write_shards(tmp_path / "a", "v", members(payloads[:7]), per_shard=3))
    list(write_shards(tmp_path / "b", "v", members(payloads), per_shard=3))
    for name in ("v-0000.tar", "v-0001.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_shard_is_complete_when_its_reader_stops_early(tmp_path):
    writing = write_shards(tmp_path, "v", members([b"one", b"two"]), per_shard=5)
    next(writing)
    writing.close()
    with tarfile.open(tmp_path / "v-0000.tar") as tar:
        assert tar.getnames() == ["0000.flac"]


def test_a_missing_shard_names_the_stage(tmp_path):
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        read_member(tmp_path, Placement("v-0000.tar", 512, 3))


def test_a_cut_off_shard_is_corrupt(tmp_path):
    (placement,) = write_shards(tmp_path, "v", members([b"x" * 2000]), per_shard=5)
    shard = tmp_path / placement.shard
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputCorruptError, match="ends before byte 2512"):
        read_member(tmp_path, placement)


@pytest.mark.parametrize("placement", [Placement("v-0000.tar", -1, 4), Placement("", 0, 4)])
def test_a_placement_that_no_file_can_have_is_corrupt(tmp_path, placement):
    (tmp_path / "v-0000.tar").write_bytes(b"12345678")
    with pytest.raises(InputCorruptError, match="cannot be read"):
        read_member(tmp_path, placement)
