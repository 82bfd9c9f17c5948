import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import sha256_file
from kamerton.data.shards import (
    Member,
    Placement,
    TarWriter,
    plan_shards,
    read_member,
    write_shard,
)

PAYLOADS = st.lists(st.binary(max_size=1500), min_size=1, max_size=12)
# Clips in each recording of a corpus.
CORPORA = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def recording(number, clips, sound="sound"):
    return [
        Member(
            f"{number:04x}-{clip:04x}.flac", f"{sound} {number}/{clip}", f"source {number}", clip
        )
        for clip in range(clips)
    ]


def corpus(sizes):
    return [clip for number, clips in enumerate(sizes) for clip in recording(number, clips)]


def names(shards):
    return {shard.name for shard in shards}


@given(PAYLOADS)
def test_payloads_come_back_by_placement_and_by_tar(tmp_path_factory, payloads):
    folder = tmp_path_factory.mktemp("shards")
    with TarWriter(folder / "v.tar") as tar:
        placements = [tar.add(f"{number}.flac", data) for number, data in enumerate(payloads)]
    assert [read_member(folder, placement) for placement in placements] == payloads
    with tarfile.open(folder / "v.tar") as tar:
        unpacked = [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]
    assert unpacked == [(f"{number}.flac", data) for number, data in enumerate(payloads)]


def test_a_tar_whose_writer_failed_has_no_end(tmp_path):
    def fail():
        with TarWriter(tmp_path / "v.tar") as tar:
            tar.add("a.flac", b"one")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "v.tar").stat().st_size == 2 * tarfile.BLOCKSIZE


@given(CORPORA, st.integers(1, 60), st.randoms())
def test_shards_hold_every_member_once_in_a_bounded_number(sizes, per_shard, random):
    members = corpus(sizes)
    shards = plan_shards("v", members, per_shard=per_shard)
    assert sorted(m.name for shard in shards for m in shard.members) == [m.name for m in members]
    assert all(1 <= len(shard.members) <= per_shard for shard in shards)
    assert all(list(s.members) == sorted(s.members, key=lambda m: (m.recording, m.position))
               for s in shards)  # fmt: skip
    shuffled = random.sample(members, len(members))
    assert plan_shards("v", shuffled, per_shard=per_shard) == shards


@given(CORPORA, st.integers(40, 90))
def test_a_recording_that_fits_is_in_one_shard(sizes, per_shard):
    shards = plan_shards("v", corpus(sizes), per_shard=per_shard)
    for number in range(len(sizes)):
        assert sum(f"source {number}" in {m.recording for m in s.members} for s in shards) == 1


@given(CORPORA, st.integers(1, 40), st.integers(1, 60))
def test_one_more_recording_changes_only_where_it_falls(sizes, clips, per_shard):
    before = plan_shards("v", corpus(sizes), per_shard=per_shard)
    after = plan_shards("v", corpus([*sizes, clips]), per_shard=per_shard)
    new = f"source {len(sizes)}"
    gone = [shard for shard in before if shard.name not in names(after)]
    assert len(gone) <= 1, "the one that it fell in; it may come back as several"
    come = [shard for shard in after if shard.name not in names(before)]
    moved = {m.name for shard in come for m in shard.members if m.recording != new}
    assert moved == {m.name for shard in gone for m in shard.members}


def test_among_many_recordings_nearly_all_shards_stay(tmp_path):
    sizes = [5 + number % 17 for number in range(400)]
    before = plan_shards("v", corpus(sizes), per_shard=100)
    after = plan_shards("v", corpus([*sizes, 12]), per_shard=100)
    assert len(before) > 50
    assert len(names(before) - names(after)) <= 1
    assert sum(len(shard.members) for shard in before) / len(before) > 50

    def write(shards, folder):
        for shard in shards:
            write_shard(folder, shard, lambda member: member.sha256.encode())
        return {path.name: sha256_file(path) for path in folder.iterdir()}

    old, new = write(before, tmp_path / "old"), write(after, tmp_path / "new")
    assert {name: old[name] for name in names(before) & names(after)}.items() <= new.items()


def test_a_clip_of_a_long_recording_changes_one_shard():
    before = plan_shards("v", recording(0, 1000), per_shard=50)
    after = plan_shards("v", recording(0, 1000)[:-1], per_shard=50)
    assert len(names(before) - names(after)) == 1


def test_the_name_is_that_of_the_content():
    (one,) = plan_shards("v", recording(0, 3), per_shard=9)
    (other,) = plan_shards("v", recording(0, 3, sound="other sound"), per_shard=9)
    (more,) = plan_shards("w", recording(0, 3), per_shard=9)
    assert one.name != other.name
    assert one.name.removeprefix("v") == more.name.removeprefix("w")


def test_payloads_are_asked_for_one_by_one(tmp_path):
    (shard,) = plan_shards("v", recording(0, 3), per_shard=9)
    asked = []

    def read(member):
        if asked:
            size = (tmp_path / shard.name).stat().st_size
            assert size >= 9000 * len(asked), "the one before is written already"
        asked.append(member.name)
        return bytes(9000)

    placements = write_shard(tmp_path, shard, read)
    assert list(placements) == asked == [member.name for member in shard.members]


def test_a_missing_shard_names_the_stage(tmp_path):
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        read_member(tmp_path, Placement("v.tar", 512, 3))
    with pytest.raises(InputMissingError, match="'segment' stage"):
        read_member(tmp_path, Placement("v.tar", 512, 3), written_by="segment")


def test_a_cut_off_shard_is_corrupt(tmp_path):
    with TarWriter(tmp_path / "v.tar") as tar:
        placement = tar.add("x", b"x" * 2000)
    shard = tmp_path / placement.shard
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputCorruptError, match="ends before byte 2512"):
        read_member(tmp_path, placement)


@pytest.mark.parametrize("placement", [Placement("v.tar", -1, 4), Placement("", 0, 4)])
def test_a_placement_that_no_file_can_have_is_corrupt(tmp_path, placement):
    (tmp_path / "v.tar").write_bytes(b"12345678")
    with pytest.raises(InputCorruptError, match="cannot be read"):
        read_member(tmp_path, placement)
