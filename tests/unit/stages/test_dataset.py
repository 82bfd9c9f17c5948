import json
import tarfile
from collections import Counter

import pytest
import soundfile

from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import sha256_tree
from kamerton.data.manifest import SPLITS, Dataset
from kamerton.stages.dataset import dataset
from tests.clip_folder import ClipFolder, corpus, hum, read_lines, sentence, small_blocks


def build(made, name="dataset", params=None, **options):
    path = made.folder / name
    page = made.folder / f"{name}.html"
    report = dataset(
        made.clips_path, made.transcripts_path, path, page, params or small_blocks(), **options
    )
    return path, report


def test_a_dataset_holds_everything_its_contract_names(tmp_path):
    path, report = build(corpus(tmp_path))
    assert sorted(item.name for item in path.iterdir()) == [
        "dataset.json",
        "manifest.jsonl",
        "metadata.csv",
        "rejected.jsonl",
        "shards",
        "test.jsonl",
        "train.jsonl",
        "val.jsonl",
    ]
    opened = Dataset.open(path)
    assert report.clips == opened.card["clips"] == 24
    assert report.hours == pytest.approx(48 / 3600, abs=1e-6)
    assert sum(report.clips_by_split.values()) == 24
    assert all(report.clips_by_split[split] for split in SPLITS)
    assert opened.card["symbols"][:3] == [" ", "!", '"']
    assert opened.card["text"]["language"] == "en"
    assert report.metrics()["rejected_clips"] == 0.0


def test_split_files_hold_the_rows_of_their_split(tmp_path):
    path, _ = build(corpus(tmp_path))
    rows = read_lines(path / "manifest.jsonl")
    for split in SPLITS:
        assert read_lines(path / f"{split}.jsonl") == [r for r in rows if r["split"] == split]


def test_the_sound_in_the_shards_is_that_of_the_clips(tmp_path):
    made = corpus(tmp_path)
    path, _ = build(made, params=small_blocks(clips_per_shard=10))
    opened = Dataset.open(path)
    shards = sorted(shard.name for shard in (path / "shards").iterdir())
    assert shards == ["speaker-0000.tar", "speaker-0001.tar", "speaker-0002.tar"]
    for row in opened.rows():
        original = (made.clips_path / "flac" / f"{row.id}.flac").read_bytes()
        assert opened.audio_bytes(row) == original
        with tarfile.open(path / "shards" / row.shard) as tar:
            assert tar.extractfile(f"{row.id}.flac").read() == original


def test_metadata_has_the_form_of_ljspeech(tmp_path):
    made = ClipFolder(tmp_path)
    for number in range(6):
        made.add(f"{sentence(number)} | {number}\nMr. X")
    made.save()
    path, _ = build(made)
    lines = (path / "metadata.csv").read_text("utf-8").splitlines()
    assert len(lines) == 6
    clip_id, raw, spoken = lines[0].split("|")
    assert clip_id == made.clips[0]["id"]
    assert raw == f"{sentence(0)} 0 Mr. X"
    assert spoken == f"{sentence(0)} zero mister x"


def test_every_rejection_has_its_stage_and_reason(tmp_path):
    made = corpus(tmp_path, clips=20)
    said = made.transcripts[0]["text"]
    expected = {
        made.add("x", clip={"status": "rejected", "file": None, "reasons": ["forced_cut"]}): (
            "segment",
            ["forced_cut"],
        ),
        made.add(None): ("dataset", ["no_transcript"]),
        made.add("??", answer={"status": "rejected", "reasons": ["low_logprob"]}): (
            "transcribe",
            ["low_logprob"],
        ),
        made.add("* * *"): ("dataset", ["no_spoken_text"]),
        made.add("word", seconds=0.3): ("dataset", ["too_short"]),
        made.add("a", seconds=3.0): ("dataset", ["too_slow"]),
        made.add("word " * 30, seconds=2.0): ("dataset", ["too_fast"]),
        made.add(said, seconds=2.02): ("dataset", ["same_text_and_length"]),
        made.add(sentence(99), wave=hum(2.0, 110.0, seed=0)): ("dataset", ["same_sound"]),
    }
    made.transcripts.append(made.transcripts[0] | {"id": "f" * 16})
    expected["f" * 16] = ("dataset", ["no_clip"])
    made.save()
    path, report = build(made)
    rejected = {row["id"]: row for row in read_lines(path / "rejected.jsonl")}
    assert {i: (row["by"], row["reasons"]) for i, row in rejected.items()} == expected
    counts = Counter(reason for _, reasons in expected.values() for reason in reasons)
    assert report.rejected == Dataset.open(path).card["rejected"] == dict(sorted(counts.items()))
    assert report.clips == 20
    twins = [row["duplicate_of"] for row in rejected.values() if row["duplicate_of"]]
    assert twins == [made.clips[0]["id"]] * 2
    page = (made.folder / "dataset.html").read_text("utf-8")
    assert "dropped" in page
    assert "forced_cut" in page
    assert page.count("<audio") >= 3
    assert not report.partial


def test_equal_input_gives_equal_bytes(tmp_path):
    made = corpus(tmp_path)
    first, _ = build(made, "one")
    second, _ = build(made, "two")
    assert sha256_tree(first) == sha256_tree(second)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_the_order_of_rows_changes_nothing(tmp_path):
    made = corpus(tmp_path)
    first, _ = build(made, "one")
    made.clips.reverse()
    made.transcripts.reverse()
    made.save()
    second, _ = build(made, "two")
    assert sha256_tree(first) == sha256_tree(second)


def content(path):
    return Dataset.open(path).card["content_sha256"]


def test_the_content_hash_sees_texts_sound_and_splits_only(tmp_path):
    made = corpus(tmp_path)
    first = content(build(made, "one")[0])
    assert first == content(build(made, "packed", small_blocks(clips_per_shard=3, name="x"))[0])
    assert first != content(build(made, "seed", small_blocks(split_seed=99))[0])
    made.transcripts[0]["text"] += " indeed"
    made.save()
    assert first != content(build(made, "text")[0])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"min_clip_seconds": 2.5}, "too_short"),
        ({"max_clip_seconds": 1.5}, "too_long"),
        ({"min_chars_per_second": 20.0}, "too_slow"),
        ({"max_chars_per_second": 10.0}, "too_fast"),
    ],
)
def test_limits_are_parameters_and_a_dataset_of_nothing_is_an_error(tmp_path, changed, reason):
    with pytest.raises(InputEmptyError, match=reason):
        build(corpus(tmp_path), params=small_blocks(**changed))
    assert not (tmp_path / "dataset").exists()


def test_text_parameters_reach_the_texts(tmp_path):
    made = ClipFolder(tmp_path)
    for number in range(6):
        made.add(f"{sentence(number).title()} 5")
    made.save()
    params = small_blocks().with_overrides({"text": {"lowercase": False, "expand_numbers": False}})
    path, _ = build(made, params=params)
    opened = Dataset.open(path)
    assert opened.rows()[0].text == f"{sentence(0).title()} 5"
    assert "5" in opened.card["symbols"]
    assert opened.card["text"]["lowercase"] is False


def test_nothing_is_overwritten_unasked(tmp_path):
    made = corpus(tmp_path)
    path, _ = build(made)
    before = sha256_tree(path)
    with pytest.raises(UsageError, match="exists already"):
        build(made)
    build(made, force=True)
    assert sha256_tree(path) == before


def test_missing_inputs_name_the_stage_that_writes_them(tmp_path):
    made = corpus(tmp_path)
    made.transcripts_path.unlink()
    with pytest.raises(InputMissingError, match="'transcribe' stage"):
        build(made)
    with pytest.raises(InputMissingError, match="'segment' stage"):
        build(ClipFolder(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        (json.dumps({"id": "x"}), "has no 'text'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    made = corpus(tmp_path)
    good = made.transcripts_path.read_text("utf-8").splitlines()
    made.transcripts_path.write_text("\n".join([*good[:2], line, *good[2:]]), "utf-8")
    with pytest.raises(InputCorruptError, match=problem) as caught:
        build(made)
    assert "transcripts.jsonl:3" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"duration_seconds": "long"}, "duration_seconds is 'long'"),
        ({"status": "maybe"}, "status is 'maybe'"),
        ({"sample_rate_hz": 0}, "positions"),
        ({"start_sample": True}, "start_sample is True"),
        ({"file": None}, "names no file"),
    ],
)
def test_a_wrong_row_of_the_clips_is_named(tmp_path, changed, problem):
    made = corpus(tmp_path, clips=6)
    made.clips[4] |= changed
    made.save()
    with pytest.raises(InputCorruptError, match=problem) as caught:
        build(made)
    assert "clips.jsonl:5" in str(caught.value)


def test_a_repeated_clip_is_named(tmp_path):
    made = corpus(tmp_path, clips=6)
    made.clips.append(made.clips[0])
    made.save()
    with pytest.raises(InputCorruptError, match="repeats the clip"):
        build(made)


def test_a_missing_flac_is_named(tmp_path):
    made = corpus(tmp_path)
    (made.clips_path / made.clips[3]["file"]).unlink()
    with pytest.raises(InputCorruptError, match=made.clips[3]["id"]):
        build(made)


def test_clips_of_two_rates_cannot_be_one_voice(tmp_path):
    made = corpus(tmp_path)
    soundfile.write(
        made.clips_path / made.clips[0]["file"], hum(2.0), 22050, format="FLAC", subtype="PCM_16"
    )
    with pytest.raises(InputCorruptError, match="16000, 22050 Hz"):
        build(made)


def test_what_the_terminal_shows(tmp_path):
    made = corpus(tmp_path, clips=20)
    made.add(None)
    made.save()
    _, report = build(made)
    shown = dict(report.summary())
    assert shown["clips kept"].startswith("20 (0.7 min): train ")
    assert shown["clips dropped"] == "1 (0.0 min)"
    assert shown["dropped: no_transcript"] == "1"
