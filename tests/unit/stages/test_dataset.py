import json
import re
import tarfile
from collections import Counter

import numpy as np
import pytest

from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import sha256_tree
from kamerton.data.manifest import SPLITS, Dataset
from kamerton.data.shards import TarWriter
from kamerton.data.tables import read_clip_file
from kamerton.data.validation import check_dataset
from kamerton.stages.dataset import dataset
from tests.clip_folder import (
    ClipFolder,
    corpus,
    flac,
    hum,
    read_lines,
    sentence,
    small_blocks,
)

add_to_tar = TarWriter.add


def changing(seconds):
    """A hum whose pitch moves, unlike those of the corpus."""
    return np.concatenate([hum(seconds / 2, 90.0, seed=1), hum(seconds / 2, 200.0, seed=2)])


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
        "README.md",
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
    assert shards == sorted({row.shard for row in opened.rows()})
    assert len(shards) >= 3
    assert all(re.fullmatch(r"speaker-[0-9a-f]{16}\.tar", name) for name in shards)
    for row in opened.rows():
        original = made.sound_of(row.id)
        assert opened.audio_bytes(row) == original
        with tarfile.open(path / "shards" / row.shard) as tar:
            assert tar.extractfile(f"{row.id}.flac").read() == original


def grown(folder, sources):
    """A corpus of recordings with hashes of their own, five clips each."""
    made = ClipFolder(folder)
    for number in range(5 * sources):
        source = number // 5
        made.add(
            sentence(number),
            source=f"{source:03d}.wav",
            clip={"id": f"{source:08x}{number:08x}", "source_sha256": f"{source:064x}"},
            wave=hum(2.0, 100.0 + number, seed=number),
        )
        made.transcripts[-1]["id"] = made.clips[-1]["id"]
    made.save()
    return made


def test_one_more_recording_changes_one_shard(tmp_path):
    params = small_blocks(clips_per_shard=20)
    before, _ = build(grown(tmp_path / "a", 24), params=params)
    after, _ = build(grown(tmp_path / "b", 25), params=params)
    old = {path.name: path.read_bytes() for path in (before / "shards").iterdir()}
    new = {path.name: path.read_bytes() for path in (after / "shards").iterdir()}
    assert len(old) >= 6
    assert len(old.keys() - new.keys()) <= 1
    assert all(new[name] == old[name] for name in old.keys() & new.keys())
    sources = [row.source for row in Dataset.open(after).rows()]
    assert sources == sorted(sources), "rows stay in order of source"


def test_the_name_of_a_recording_changes_neither_shards_nor_content(tmp_path):
    made = grown(tmp_path, 4)
    first, _ = build(made, "one")
    for clip in made.clips:
        clip["source"] = f"renamed/{clip['source']}"
    made.save()
    second, _ = build(made, "two")
    assert sha256_tree(first / "shards") == sha256_tree(second / "shards")


def test_no_more_than_one_clip_is_held_and_none_is_decoded(tmp_path, monkeypatch):
    made = grown(tmp_path, 4)
    monkeypatch.setattr("kamerton.data.joining.decode_flac", lambda *_: pytest.fail("decoded"))
    read, written = [], []
    monkeypatch.setattr(
        "kamerton.data.packing.read_clip_file",
        lambda folder, clip: read.append(clip.id) or read_clip_file(folder, clip),
    )
    monkeypatch.setattr(
        TarWriter,
        "add",
        lambda self, *member: written.append(len(read)) or add_to_tar(self, *member),
    )
    build(made)
    assert written == list(range(1, 21))


@pytest.mark.parametrize("damage", [b"", b"RIFF", b"\0" * 5000])
def test_damaged_sound_is_named(tmp_path, damage):
    made = corpus(tmp_path)
    clip = made.clips[3]
    path = made.clips_path / clip["file"]
    whole = path.read_bytes()
    at = clip["offset_bytes"]
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :] if damage else whole[: at + 9])
    with pytest.raises(InputCorruptError, match=clip["id"]) as caught:
        build(made)
    assert "kamerton segment --force" in caught.value.hint
    assert not (tmp_path / "dataset").exists()


def test_sound_that_is_not_as_long_as_its_row_says_is_named(tmp_path):
    made = corpus(tmp_path)
    made.clips[3]["duration_seconds"] += 0.01
    made.save()
    with pytest.raises(InputCorruptError, match=r"is 2\.000 s long, its row says 2\.010"):
        build(made)


def test_the_card_for_people_says_what_is_in_it(tmp_path):
    made = corpus(tmp_path, clips=20)
    made.add(None)
    made.save()
    about = {"licence": "CC-BY-4.0", "description": "A calm reader | at home."}
    path, _ = build(made, params=small_blocks(name="anna", **about))
    card = (path / "README.md").read_text("utf-8")
    opened = Dataset.open(path)
    assert card.startswith("# anna\n\nA calm reader | at home.\n")
    for line in (
        "| licence | CC-BY-4.0 |",
        f"| content | `{opened.card['content_sha256']}` |",
        "| a.wav | `abababababababab` | 10 | 0.33 |",
        "| dataset | no_transcript | 1 | 0.03 | there is no transcript |",
        "  block_seconds: 4.0",
    ):
        assert line in card
    assert opened.card["licence"] == "CC-BY-4.0"
    assert content(path) == content(build(made, "plain", small_blocks())[0])


def test_a_correction_wins_over_tempo_and_its_origin_is_kept(tmp_path):
    made = corpus(tmp_path, clips=9)
    fast = "word " * 30 + "indeed"
    refused = made.add(fast, wave=changing(2.0), answer={"origin": "given"})
    kept = made.add(f"{fast} so", wave=changing(2.5), answer={"origin": "corrected"})
    made.save()
    path, report = build(made)
    opened = Dataset.open(path)
    assert report.rejected == {"too_fast": 1}
    assert {row.id: row.text_origin for row in opened.rows()}[kept] == "corrected"
    assert refused not in {row.id for row in opened.rows()}
    assert opened.card["texts"] == {"corrected": 1, "recognised": 9}
    assert "| texts | 1 corrected, 9 recognised |" in (path / "README.md").read_text("utf-8")


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
        made.add(said, wave=changing(2.02)): ("dataset", ["same_text_and_length"]),
        made.add(sentence(99), wave=hum(2.0, 110.0, seed=0)): ("dataset", ["same_sound"]),
        made.add(f"{said}!", wave=0.5 * hum(2.0, 110.0, seed=0)): ("dataset", ["same_sound_again"]),
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
    assert twins == [made.clips[0]["id"]] * 3
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


def test_phonemes_are_added_for_a_voice_that_reads_them(tmp_path, monkeypatch):
    made = corpus(tmp_path, clips=9)
    made.add("mumble mumble 5")
    made.save()
    monkeypatch.setattr("kamerton.text.phonemes._known", {})
    monkeypatch.setattr("kamerton.text.phonemes.program_version", lambda: "9.9")
    monkeypatch.setattr("kamerton.data.card.program_version", lambda: "9.9")
    monkeypatch.setattr(
        "kamerton.text.phonemes._ask",
        lambda lines, voice: ["" if "mumble" in line else line[::-1] + "ə" for line in lines],
    )
    letters, _ = build(made, "letters")
    spoken = small_blocks().with_overrides({"text": {"phonemes": "espeak"}})
    path, report = build(made, "phonemes", spoken)
    opened = Dataset.open(path)
    assert [row.phonemes for row in opened.rows()] == [
        f"{row.text[::-1]}ə" for row in opened.rows()
    ]
    assert all(row.model_text == row.phonemes for row in opened.rows())
    assert report.rejected == {"no_spoken_text": 1}
    assert "ə" in opened.card["symbols"]
    assert "ʒ" in opened.card["symbols"], "the table does not depend on the texts"
    assert opened.card["phonemes_by"] == "espeak-ng 9.9"
    assert check_dataset(path, deep=True).problems == ()
    assert content(path) != content(letters)
    assert Dataset.open(letters).rows()[0].phonemes is None


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
    made.clips[0] |= made.put(made.clips[0]["id"], flac(hum(2.0, rate_hz=22050), 22050))
    made.save()
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
