import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.data.manifest import Row
from kamerton.data.tables import read_clip_file, read_clips, read_transcripts
from tests.clip_folder import ClipFolder

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def outcome(read):
    """What a reader gives, or how it says that the file is damaged."""
    try:
        return read(), None
    except InputCorruptError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    made = ClipFolder(tmp_path_factory.mktemp("good"))
    for source in ("b.wav", "a.wav", "b.wav"):
        made.add("one two", source=source)
    made.save()
    return made


def test_clips_come_in_order_of_source_and_position(good):
    clips = read_clips(good.clips_path)
    assert [clip.source for clip in clips] == ["a.wav", "b.wav", "b.wav"]
    assert clips[1].start_sample < clips[2].start_sample
    assert read_clip_file(good.clips_path, clips[0]).startswith(b"fLaC")


def changed_row(good, folder, **values):
    rows = [dict(row) for row in good.clips]
    rows[0] |= values
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"file": "../x.tar"}, "outside of the folder"),
        ({"file": "/etc/passwd"}, "outside of the folder"),
        ({"file": "audio/../../x.tar"}, "outside of the folder"),
        ({"file": "clips.jsonl"}, "outside of the folder"),
        ({"file": "audio/.."}, "outside of the folder"),
        ({"file": ""}, "outside of the folder"),
        ({"file": None}, "names no file"),
        ({"offset_bytes": None}, "not where in it"),
        ({"pcm_sha256": None}, "not its hashes"),
        ({"offset_bytes": -1}, "place that no clip can have"),
        ({"size_bytes": -1}, "place that no clip can have"),
    ],
)
def test_places_that_no_clip_can_have_are_refused(good, tmp_path, values, problem):
    with pytest.raises(InputCorruptError, match=problem):
        read_clips(changed_row(good, tmp_path, **values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"offset_bytes": 2**50}, "ends before byte"),
        ({"size_bytes": 2**62}, "ends before byte"),
        ({"offset_bytes": 0}, "holds something else at byte 0"),
        ({"audio_sha256": "00"}, "holds something else"),
        ({"file": "audio/none.tar"}, r"cannot be read \(No such file"),
        ({"file": "audio/folder"}, r"cannot be read \(Is a directory"),
    ],
)
def test_sound_that_is_not_where_the_table_says_is_an_error(good, tmp_path, values, problem):
    shutil.copytree(good.clips_path / "audio", tmp_path / "audio")
    (tmp_path / "audio/folder").mkdir()
    clips = read_clips(changed_row(good, tmp_path, **values))
    clip = next(clip for clip in clips if clip.id == good.clips[0]["id"])
    with pytest.raises(InputCorruptError, match=problem) as caught:
        read_clip_file(tmp_path, clip)
    assert clip.id in str(caught.value)
    assert "kamerton segment" in caught.value.hint


def test_transcripts_are_found_by_clip(good):
    found = read_transcripts(good.transcripts_path)
    assert {i: row.text for i, row in found.items()} == {c["id"]: "one two" for c in good.clips}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("duration_seconds", float("nan")),
        ("duration_seconds", -1.0),
        ("snr_db", float("inf")),
        ("end_sample", -5),
        ("reasons", "none"),
        ("source", None),
        ("source", "half a pair \ud83d"),
    ],
)
def test_values_that_no_clip_can_have_are_refused(good, tmp_path, key, value):
    rows = [dict(row) for row in good.clips]
    rows[0][key] = value
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputCorruptError, match=r"clips\.jsonl:1"):
        read_clips(tmp_path)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=6), JSON), max_size=3), st.booleans())
def test_damaged_rows_are_refused_or_harmless(tmp_path_factory, good, damage, drop):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    for name, rows, read in (
        ("clips.jsonl", good.clips, lambda: read_clips(folder)),
        ("t.jsonl", good.transcripts, lambda: read_transcripts(folder / "t.jsonl")),
    ):
        damaged = [dict(row) for row in rows]
        for number, key, value in damage:
            names = [*rows[0], key]
            changed = names[len(key) * 7 % len(names)]
            damaged[number][changed] = value
            if drop:
                del damaged[number][changed]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in damaged), "utf-8")
        found, problem = outcome(read)
        assert len(found) == 3 if problem is None else name in problem


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_readers(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(data)
    found, problem = outcome(lambda: read_transcripts(path))
    assert found == {} if problem is None else "bytes.jsonl" in problem


@given(st.dictionaries(st.sampled_from([*Row.__slots__, "other"]), JSON))
def test_arbitrary_manifest_rows_are_refused(values):
    with pytest.raises(InputCorruptError, match="here"):
        Row.from_dict(values, "here")


def test_missing_tables_name_their_stage(tmp_path):
    with pytest.raises(InputMissingError, match="'segment' stage"):
        read_clips(tmp_path / "none")
    with pytest.raises(InputMissingError, match="'transcribe' stage"):
        read_transcripts(tmp_path / "none.jsonl")
