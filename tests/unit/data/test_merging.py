"""Shards of several machines, joined, are what one machine writes."""

import json
import shutil

import numpy as np
import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import output_directory, sha256_tree
from kamerton.data.clips_folder import in_order
from kamerton.data.given_texts import GivenText
from kamerton.data.merging import merge_clips, merge_transcripts
from kamerton.data.sharding import Part
from kamerton.data.tables import read_clips
from kamerton.stages.dataset import dataset
from kamerton.stages.segment import SegmentReport, segment, write_report
from tests.clip_folder import read_lines, sentence, write_lines
from tests.recordings import bursts, paced, with_noise, write_sound

RATE_HZ = 16_000
PARAMS = Params.model_validate(
    {
        "segment": {"detector": "energy", "target_seconds": 2.0, "max_inner_pause_seconds": 0.3},
        "audio": {"sample_rate_hz": RATE_HZ, "mel_fmax_hz": 7000.0},
    }
)


def speak(path, seed):
    spans, seconds = paced([1.6, 0.4, 1.9], [0.5] * 4)
    wave = with_noise(bursts(spans, seconds, RATE_HZ, seed=seed), "white", 40, RATE_HZ, seed=seed)
    write_sound(path, wave, RATE_HZ)


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """A folder of recordings, cut by one machine, by two and by three."""
    root = tmp_path_factory.mktemp("machines")
    raw = root / "raw"
    for number in range(6):
        speak(raw / f"r{number}.wav", number)
    # Copies in other parts, before and after the original by name, one of them with a text of its
    # own, which makes it one clip.
    shutil.copy(raw / "r3.wav", raw / "a copy.wav")
    shutil.copy(raw / "r3.wav", raw / "z copy.wav")
    shutil.copy(raw / "r2.wav", raw / "sub.wav")
    (raw / "r3.txt").write_text("all that is said in it")
    (raw / "r1.srt").write_text(
        "2\n00:00:02,000 --> 00:00:03,000\nlater\n\n1\n00:00:00,500 --> 00:00:01,000\nfirst\n"
    )
    (raw / "metadata.csv").write_text("".join(f"r{n}|number {n}\n" for n in (5, 4, 0)))
    (raw / "corrections.csv").write_text(
        "id,source,start_seconds,end_seconds,text\n"
        "0123456789abcdef,,,,nobody has this clip\n"
        ",nowhere.wav,1,2,nor this recording\n"
        ",r5.wav,0.5,2.1,a correction\n"
    )
    (raw / "bad.wav").write_text("no sound, only words\n" * 50)
    (raw / "empty.wav").touch()
    write_sound(raw / "silence.wav", np.zeros(RATE_HZ, dtype=np.float32), RATE_HZ)
    cache = root / "cache"
    segment(raw, root / "whole", root / "whole.html", PARAMS, cache=cache)
    for count in (2, 3):
        for index in range(count):
            name = f"{index}of{count}"
            segment(
                *(raw, root / name, root / f"{name}.html", PARAMS),
                cache=cache,
                shard=f"{index}/{count}",
            )
    return root


def parts_of(root, count):
    return [root / f"{index}of{count}" for index in range(count)]


def merged(root, parts, name):
    with output_directory(root / name, force=True) as folder:
        (folder / "audio").mkdir()
        merge_clips(parts, folder)
    return root / name


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_parts_make_the_whole_to_the_byte(machines, count, backwards):
    parts = parts_of(machines, count)
    folder = merged(machines, parts[::-1] if backwards else parts, f"merged{count}")
    for name in ("clips.jsonl", "sources.jsonl", "texts.jsonl", "segment.json"):
        assert (folder / name).read_bytes() == (machines / "whole" / name).read_bytes(), name
    assert sha256_tree(folder) == sha256_tree(machines / "whole")


def test_the_whole_is_worth_comparing(machines):
    sources = {row["source"]: row for row in read_lines(machines / "whole/sources.jsonl")}
    assert sources["r3.wav"]["reasons"] == ["duplicate: same bytes as a copy.wav"]
    assert sources["z copy.wav"]["reasons"] == ["duplicate: same bytes as a copy.wav"]
    texts = read_lines(machines / "whole/texts.jsonl")
    assert {row["source"] for row in texts} >= {"r1.wav", "r3.wav", "r5.wav", None}
    assert json.loads((machines / "whole/segment.json").read_text())["text_problems"]
    # The copies lie in different parts, so that merging has to find them.
    where = {Part(n, 3).has(name) for name in ("r3.wav", "a copy.wav", "z copy.wav") for n in (0,)}
    assert where == {True, False}


def test_each_recording_is_cut_by_one_part(machines):
    names = [
        row["source"] for p in parts_of(machines, 3) for row in read_lines(p / "sources.jsonl")
    ]
    whole = [row["source"] for row in read_lines(machines / "whole/sources.jsonl")]
    assert sorted(names) == whole


def transcribe(clips, path):
    """A transcript for each kept clip, as it depends on the clip alone."""
    write_lines(
        path,
        [
            {
                "id": clip.id,
                "text": sentence(int(clip.id[:4], 16) % 400, words=3),
                "language": "en",
                "avg_logprob": -0.2,
                "origin": "recognised",
                "status": "kept",
                "reasons": [],
            }
            for clip in read_clips(clips)
            if clip.status == "kept"
        ],
    )
    return path


@pytest.mark.parametrize("count", [2, 3])
def test_the_dataset_of_the_parts_is_that_of_the_whole(machines, tmp_path, count):
    parts = parts_of(machines, count)
    clips = merged(machines, parts, f"merged{count}")
    rows = merge_transcripts([transcribe(p, tmp_path / f"{p.name}.jsonl") for p in parts], clips)
    write_lines(tmp_path / "merged.jsonl", rows)
    whole = transcribe(machines / "whole", tmp_path / "whole.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == whole.read_bytes()
    params = PARAMS.with_overrides({"dataset": {"block_seconds": 2.0}})
    cards = []
    for name, folder in (("merged", clips), ("whole", machines / "whole")):
        made = tmp_path / f"{name}-dataset"
        dataset(folder, tmp_path / f"{name}.jsonl", made, tmp_path / f"{name}.html", params)
        cards.append(json.loads((made / "dataset.json").read_text()))
    assert cards[0]["content_sha256"] == cards[1]["content_sha256"]
    assert cards[0] == cards[1]


def test_a_report_on_the_whole_needs_no_recordings(machines, tmp_path):
    with output_directory(tmp_path / "clips") as folder:
        (folder / "audio").mkdir()
        tables = merge_clips(parts_of(machines, 2), folder)
    result = SegmentReport.of(tables)
    write_report(tmp_path / "page.html", result, tables)
    page = (tmp_path / "page.html").read_text()
    assert "same bytes as a copy.wav" in page
    assert result.sources_read == 6


def copy_of(part, tmp_path):
    return shutil.copytree(part, tmp_path / part.name)


def change_rows(path, change):
    rows = read_lines(path)
    for row in rows:
        change(row)
    write_lines(path, rows)


def test_a_forgotten_part_is_noticed(machines):
    with pytest.raises(UsageError, match=r"Parts are missing: 1/3\."):
        merged(machines, [machines / "0of3", machines / "2of3"], "no")
    with pytest.raises(UsageError, match="parts are of 2 and 3"):
        merged(machines, [*parts_of(machines, 3), machines / "0of2"], "no")
    assert not (machines / "no").exists()


def test_parts_may_be_named_twice(machines):
    folder = merged(machines, parts_of(machines, 2) * 2, "twice")
    assert sha256_tree(folder) == sha256_tree(machines / "whole")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("code_sha256", "0" * 64, "code_sha256"),
        ("detector", "neural", "detector"),
        ("parameters", {"min_seconds": 9.0}, "segment.min_seconds"),
    ],
)
def test_parts_cut_in_other_ways_are_refused(machines, tmp_path, name, value, said):
    one, other = machines / "0of2", copy_of(machines / "1of2", tmp_path)
    values = json.loads((other / "segment.json").read_text())
    values[name] = values[name] | value if isinstance(value, dict) else value
    (other / "segment.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=f"was not cut as .*{said}"):
        merged(machines, [one, other], "no")


@pytest.mark.parametrize(
    ("file", "column", "value", "said"),
    [
        ("sources.jsonl", "source_sha256", "ab" * 32, "are of different bytes"),
        ("sources.jsonl", "gain_db", 99.0, "were cut differently"),
        ("clips.jsonl", "snr_db", 99.0, "were cut differently"),
        ("sources.jsonl", "reasons", "none", r"sources\.jsonl:1: reasons is 'none'"),
        ("clips.jsonl", "status", "maybe", r"clips\.jsonl:1: status"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    machines, tmp_path, file, column, value, said
):
    parts = parts_of(machines, 2)
    other = copy_of(parts[1], tmp_path)
    change_rows(other / file, lambda row: row.update({column: value}))
    with pytest.raises(InputCorruptError, match=said):
        merged(machines, [*parts, other], "no")


def test_missing_pieces_are_named(machines, tmp_path):
    other = copy_of(machines / "1of2", tmp_path)
    for path in (other / "audio").iterdir():
        path.unlink()
    with pytest.raises(InputMissingError, match=r"audio/[0-9a-f]{16}\.tar does not exist"):
        merged(machines, [machines / "0of2", other], "no")
    (other / "segment.json").unlink()
    with pytest.raises(InputMissingError, match=r"segment\.json does not exist"):
        merged(machines, [machines / "0of2", other], "no")
    with pytest.raises(InputMissingError, match="nowhere does not exist"):
        merged(machines, [machines / "nowhere"], "no")


def test_parts_of_nothing_make_nothing(tmp_path):
    speak(tmp_path / "raw/only.wav", 1)
    for index in range(2):
        name = f"{index}of2"
        report = segment(
            *(tmp_path / "raw", tmp_path / name, tmp_path / f"{name}.html", PARAMS),
            shard=f"{index}/2",
        )
        assert report.sources_read == Part(index, 2).has("only.wav")
        assert not report.partial
    empty = next(index for index in range(2) if not Part(index, 2).has("only.wav"))
    page = (tmp_path / f"{empty}of2.html").read_text()
    assert "No recording was read" in page
    merged(tmp_path, parts_of(tmp_path, 2), "clips")
    values = json.loads((tmp_path / f"{empty}of2/segment.json").read_text())
    values["shard"] = "0/1"
    (tmp_path / f"{empty}of2/segment.json").write_text(json.dumps(values))
    with pytest.raises(InputEmptyError, match="no recording that was read"):
        merged(tmp_path, [tmp_path / f"{empty}of2"], "no")


def test_transcripts_must_be_whole_and_agree(machines, tmp_path):
    clips = machines / "whole"
    parts = [transcribe(part, tmp_path / f"{part.name}.jsonl") for part in parts_of(machines, 2)]
    with pytest.raises(UsageError, match=r"clips of .* have no transcript in these parts"):
        merge_transcripts(parts[:1], clips)
    change_rows(transcribe(clips, tmp_path / "other.jsonl"), lambda row: row.update(text="no"))
    with pytest.raises(InputCorruptError, match="says something else of clip"):
        merge_transcripts([*parts, tmp_path / "other.jsonl"], clips)


def test_parts_cut_with_other_versions_are_refused(machines, tmp_path):
    other = shutil.copytree(machines / "1of2", tmp_path / "other")
    values = json.loads((other / "segment.json").read_text())
    values["versions"]["soxr"] = "0.0"
    (other / "segment.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"versions\.soxr \(.* and 0\.0\)"):
        merged(tmp_path, [machines / "0of2", other], "merged")


def test_a_hash_that_leads_elsewhere_is_refused(machines, tmp_path):
    other = shutil.copytree(machines / "1of2", tmp_path / "other")
    rows = read_lines(other / "sources.jsonl")
    rows[0]["source_sha256"] = "../../outside"
    write_lines(other / "sources.jsonl", rows)
    with pytest.raises(InputCorruptError, match="source_sha256"):
        merged(tmp_path, [machines / "0of2", other], "merged")


def test_the_order_of_texts_does_not_depend_on_that_of_parts():
    texts = [
        GivenText("metadata", name, None, None, None, "x", "metadata.csv:1")
        for name in ("b.wav", "a.wav", None)
    ]
    assert in_order(texts) == in_order(texts[::-1])
