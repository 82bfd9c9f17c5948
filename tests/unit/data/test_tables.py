import json

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
