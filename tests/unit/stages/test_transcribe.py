import numpy as np
import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import write_json
from kamerton.data.tables import read_transcripts
from kamerton.data.transcription import ListeningIdentity
from kamerton.stages import transcribe as stage
from tests.clip_folder import RATE_HZ, ClipFolder, ScriptedRecogniser, read_lines, write_lines
from tests.fake_ear import FakeEar, coded, words

PACKED = Params().with_overrides({"transcribe": {"model": "tiny"}})
IDENTITY = ListeningIdentity("whisper", "tiny", (), "cpu", 1, (0.0,))
PARAMS = PACKED.with_overrides({"transcribe": {"pack": False}})


@pytest.fixture
def listen(monkeypatch):
    """Replace the recogniser, and nothing else, by a scripted one."""

    def install(answers):
        scripted = ScriptedRecogniser(answers)
        monkeypatch.setattr(stage, "load_recogniser", lambda _params, _language: scripted)
        return scripted

    return install


def folder_of(tmp_path, seconds):
    made = ClipFolder(tmp_path)
    for length in seconds:
        made.add(None, seconds=length)
    made.save()
    return made


def test_every_figure_and_verdict_is_written(tmp_path, listen):
    made = folder_of(tmp_path, [1.0, 1.5, 2.0])
    listen(["one two", {"text": "unsure words", "avg_logprob": -1.5}, {"text": ""}])
    report = stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    rows = read_lines(tmp_path / "t.jsonl")
    assert rows[0] == {
        "id": made.clips[0]["id"],
        "text": "one two",
        "language": "en",
        "avg_logprob": -0.2,
        "no_speech_prob": 0.01,
        "compression_ratio": 1.1,
        "temperature": 0.0,
        "language_prob": None,
        "way": "alone",
        "redo": None,
        "chars_per_second": 7.0,
        "unique_word_share": 1.0,
        "backend": "whisper",
        "model": "tiny",
        "origin": "recognised",
        "where": None,
        "note": None,
        "status": "kept",
        "reasons": [],
    }
    assert [row["reasons"] for row in rows] == [[], ["low_logprob"], ["empty_text"]]
    assert [row["status"] for row in rows] == ["kept", "rejected", "rejected"]
    assert report.metrics() == {
        "clips": 3.0,
        "kept": 1.0,
        "rejected": 2.0,
        "seconds": 4.5,
        "windows": 0.0,
        "packed": 0.0,
        "redone": 0.0,
        "redone_alone": 0.0,
        "texts_recognised": 3.0,
        "mean_avg_logprob": pytest.approx(-0.63333),
    }
    assert not report.partial
    assert ("not believed: low_logprob", "1") in report.summary()


def test_the_recogniser_hears_mono_at_16_khz(tmp_path, listen):
    made = ClipFolder(tmp_path)
    made.add(None, seconds=1.0)
    made.save()
    scripted = listen(["one"])
    stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert [wave.shape for wave in scripted.heard] == [(RATE_HZ,)]
    assert scripted.heard[0].dtype == np.float32


def test_rejected_clips_are_not_heard(tmp_path, listen):
    made = ClipFolder(tmp_path)
    made.add(None, clip={"status": "rejected", "file": None, "reasons": ["forced_cut"]})
    kept = made.add(None)
    made.save()
    scripted = listen(["one"])
    stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert len(scripted.heard) == 1
    assert [row["id"] for row in read_lines(tmp_path / "t.jsonl")] == [kept]


def test_an_answer_three_times_in_a_row_is_a_hallucination(tmp_path, listen):
    made = ClipFolder(tmp_path)
    for source in ["a.wav", "a.wav", "a.wav", "b.wav", "b.wav"]:
        made.add(None, source=source)
    made.save()
    listen(["thank you"] * 5)
    stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    reasons = [row["reasons"] for row in read_lines(tmp_path / "t.jsonl")]
    assert reasons == [["repeated_answer"]] * 3 + [[]] * 2


def test_another_language_is_not_believed(tmp_path, listen):
    made = folder_of(tmp_path, [1.0])
    listen([{"text": "eins zwei", "language": "de"}])
    stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert read_lines(tmp_path / "t.jsonl")[0]["reasons"] == ["other_language"]


def test_progress_counts_seconds_of_sound(tmp_path, listen):
    made = folder_of(tmp_path, [1.0, 2.0])
    listen(["one", "two"])
    seen = []
    stage.transcribe(
        made.clips_path,
        tmp_path / "t.jsonl",
        PARAMS,
        on_progress=lambda done, total, _note="": seen.append((done, total)),
    )
    assert sorted(set(seen)) == [(0.0, 3.0), (1.0, 3.0), (3.0, 3.0)]
    assert seen == sorted(seen)


def test_nothing_is_overwritten_unasked(tmp_path, listen):
    made = folder_of(tmp_path, [1.0])
    (tmp_path / "t.jsonl").write_text("mine")
    listen(["one"])
    with pytest.raises(UsageError, match="exists already"):
        stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert (tmp_path / "t.jsonl").read_text() == "mine"
    stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS, force=True)
    assert read_lines(tmp_path / "t.jsonl")[0]["text"] == "one"


def test_missing_clips_name_the_stage_that_writes_them(tmp_path):
    with pytest.raises(InputMissingError, match="'segment' stage"):
        stage.transcribe(tmp_path / "clips", tmp_path / "t.jsonl", PARAMS)


def test_an_empty_folder_lacks_its_table(tmp_path):
    (tmp_path / "clips").mkdir()
    with pytest.raises(InputMissingError, match=r"clips\.jsonl"):
        stage.transcribe(tmp_path / "clips", tmp_path / "t.jsonl", PARAMS)


def test_no_kept_clip_is_an_error(tmp_path, listen):
    made = ClipFolder(tmp_path)
    made.add(None, clip={"status": "rejected", "file": None, "reasons": ["too_noisy"]})
    made.save()
    listen([])
    with pytest.raises(InputEmptyError, match="clip that was kept"):
        stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)


def test_a_missing_file_is_named(tmp_path, listen):
    made = folder_of(tmp_path, [1.0])
    (made.clips_path / made.clips[0]["file"]).unlink()
    listen(["one"])
    with pytest.raises(InputCorruptError, match=made.clips[0]["id"]):
        stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert not (tmp_path / "t.jsonl").exists()


def test_a_broken_file_is_named(tmp_path, listen):
    made = folder_of(tmp_path, [1.0])
    made.clips[0] |= made.put(made.clips[0]["id"], b"fLaC, not really")
    made.save()
    listen(["one"])
    with pytest.raises(InputCorruptError, match="cannot be decoded") as caught:
        stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert "kamerton segment" in caught.value.hint


@pytest.fixture
def hear(monkeypatch):
    """Replace the recogniser, and nothing else, by one that knows each clip by its samples."""

    def install(*spoil, **options):
        ear = FakeEar(*spoil, **options)
        monkeypatch.setattr(stage, "load_recogniser", lambda _params, _language: ear)
        monkeypatch.setattr(stage, "listening_identity", lambda _params, _model: IDENTITY)
        return ear

    return install


def coded_folder(tmp_path, sources, *, first=0):
    """Clips that say their number: sources maps a recording to its clips' lengths."""
    made = ClipFolder(tmp_path)
    number = first
    for source, lengths in sources.items():
        for length in lengths:
            made.add(None, source=source, wave=coded(number, length))
            number += 1
    made.save()
    return made


def run(made, params=PACKED, **options):
    out = made.folder / "t.jsonl"
    report = stage.transcribe(made.clips_path, out, params, force=True, **options)
    return report, read_lines(out)


def test_windows_are_never_shared_by_recordings(tmp_path, hear):
    ear = hear()
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0], "b.wav": [3.0] * 3, "c.wav": [6.0]})
    report, rows = run(made)
    assert ear.windows == [(0, 1), (2, 3, 4)]
    assert ear.clips == [5]
    assert [row["way"] for row in rows] == ["packed"] * 5 + ["alone"]
    assert [row["text"] for row in rows[:2]] == [words(0, 5.0), words(1, 4.0)]
    assert (report.windows, report.packed, report.redone) == (2, 5, {})
    assert ("packed", "5 clips in 2 windows") in report.summary()
    assert ("heard again", "none") in report.summary()


def test_the_report_says_what_was_heard_again_and_why(tmp_path, hear):
    ear = hear(lambda texts: [texts[0], *texts[2:]])
    report, rows = run(coded_folder(tmp_path, {"a.wav": [5.0, 4.0, 5.0, 4.0]}))
    assert ear.clips == [1]
    assert [row["redo"] for row in rows] == [None, "no_text", None, None]
    assert ("heard again", "1 (25%; 1 no_text), 1 of them alone") in report.summary()
    assert report.metrics()["redone"] == 1.0


def test_a_new_recording_is_the_only_one_heard(tmp_path, hear):
    sources = {"a.wav": [5.0, 4.0], "b.wav": [3.0] * 3}
    cache = tmp_path / "cache"
    hear()
    _, before = run(coded_folder(tmp_path / "one", sources), cache=cache)
    ear = hear()
    made = coded_folder(tmp_path / "two", sources | {"c.wav": [2.0, 2.0]})
    _, after = run(made, cache=cache)
    assert after[:5] == before
    assert (ear.windows, ear.clips) == ([(5, 6)], [])


def test_other_limits_need_no_hearing(tmp_path, hear, monkeypatch):
    hear()
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0, 30.0]})
    _, before = run(made, cache=tmp_path / "cache")

    def refuse(_params, _language):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(stage, "load_recogniser", refuse)
    strict = PACKED.with_overrides({"transcribe": {"min_avg_logprob": -0.25}})
    report, rows = run(made, strict, cache=tmp_path / "cache")
    assert [row["reasons"] for row in before] == [[], [], []]
    assert [row["reasons"] for row in rows] == [[], [], ["low_logprob"]]
    same = PACKED.with_overrides({"transcribe": {"hallucinations": ["clip 1 *"]}})
    _, rows = run(made, same, cache=tmp_path / "cache")
    assert [row["reasons"] for row in rows] == [[], ["known_hallucination"], []]
    assert report.kept == 2


def test_a_language_is_found_once_for_each_recording(tmp_path, hear):
    ear = hear(languages=[{"en": 0.9, "de": 0.1}, {"en": 0.2, "de": 0.8}, {"en": 0.7, "de": 0.3}])
    params = PACKED.with_overrides({"transcribe": {"detect_language": True}})
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0], "b.wav": [3.0, 3.0], "c.wav": [2.0]})
    _, rows = run(made, params)
    assert ear.asked == [(0, 1), (2, 3), (4,)]
    assert [(row["language"], row["language_prob"]) for row in rows] == [
        ("en", 0.9),
        ("en", 0.9),
        ("de", 0.8),
        ("de", 0.8),
        ("en", 0.7),
    ]
    assert [row["reasons"] for row in rows] == [
        [],
        [],
        ["other_language"],
        ["other_language"],
        ["unsure_language"],
    ]


def give(made, *texts):
    """Write clips/texts.jsonl as the segment stage does."""
    empty = {"kind": "correction", "source": None, "id": None}
    empty |= {"start_seconds": None, "end_seconds": None, "where": "corrections.csv:2"}
    write_lines(made.clips_path / "texts.jsonl", [empty | text for text in texts])


def test_corrections_win_over_the_recogniser_and_the_filters(tmp_path, hear):
    ear = hear()
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0, 5.0], "b.wav": [4.0]})
    ids = [clip["id"] for clip in made.clips]
    give(made, {"id": ids[0], "text": "thanks for watching"}, {"id": ids[3], "text": ""})
    report, rows = run(made)
    assert ear.clips == [], "nobody needs to hear a recording that is all written by hand"
    first, second, _, last = rows
    assert first["text"] == "thanks for watching"
    assert (first["origin"], first["status"], first["reasons"]) == ("corrected", "kept", [])
    assert (first["avg_logprob"], first["model"]) == (None, None)
    assert first["where"] == "corrections.csv:2"
    assert second["origin"] == "recognised"
    assert (last["status"], last["reasons"]) == ("rejected", ["dropped_by_hand"])
    assert report.origins == {"corrected": 2, "recognised": 2}
    assert ("texts", "2 corrected, 2 recognised") in report.summary()
    assert not report.partial
    assert rows[0].keys() == rows[1].keys()


def test_a_correction_without_a_clip_makes_the_result_partial(tmp_path, hear):
    hear()
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0]})
    give(made, {"id": "f" * 16, "text": "nowhere to be found"})
    report, rows = run(made)
    assert report.partial
    assert any(name == "not used" and "correction" in what for name, what in report.summary())
    assert {row["origin"] for row in rows} == {"recognised"}


def test_subtitles_leave_nothing_to_hear(tmp_path, monkeypatch):
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0]})
    monkeypatch.setattr(stage, "load_recogniser", lambda *_: pytest.fail("the model was loaded"))
    cues = [
        {
            "kind": "subtitle",
            "source": "a.wav",
            "start_seconds": clip["start_sample"] / clip["sample_rate_hz"],
            "end_seconds": clip["end_sample"] / clip["sample_rate_hz"],
            "text": f"Cue number {number}.",
            "where": f"a.srt:{number}",
        }
        for number, clip in enumerate(made.clips)
    ]
    give(made, *cues)
    absent = Params().with_overrides({"transcribe": {"model": str(tmp_path / "absent.pt")}})
    report, rows = run(made, absent)
    assert [row["text"] for row in rows] == ["Cue number 0.", "Cue number 1."]
    assert {row["origin"] for row in rows} == {"given"}
    assert report.mean_avg_logprob is None


def test_a_text_of_the_whole_recording_is_laid_along_what_was_heard(tmp_path, listen):
    made = ClipFolder(tmp_path)
    for _ in range(3):
        made.add(None, source="a.wav", seconds=3.0)
    made.save()
    listen(["the river runs too the see", "a stone in the garden", "silver letters at dawn"])
    book = "The river runs to the sea. A stone in the garden. Silver letters, at dawn!"
    give(made, {"kind": "text", "source": "a.wav", "text": book, "where": "a.txt"})
    _, rows = run(made, PARAMS)
    assert [row["text"] for row in rows] == [
        "The river runs to the sea.",
        "A stone in the garden.",
        "Silver letters, at dawn!",
    ]
    assert {(row["origin"], row["where"]) for row in rows} == {("given", "a.txt")}


def test_a_text_that_says_something_else_is_noted_and_not_taken(tmp_path, listen):
    made = ClipFolder(tmp_path)
    for _ in range(2):
        made.add(None, source="a.wav", seconds=3.0)
    made.save()
    listen(["the river runs to the sea", "a stone in the garden"])
    other = "Winter mornings are cold. Markets open late, candles burn."
    give(made, {"kind": "text", "source": "a.wav", "text": other, "where": "a.txt"})
    _, rows = run(made, PARAMS)
    assert [row["text"] for row in rows] == ["the river runs to the sea", "a stone in the garden"]
    assert {(row["origin"], row["note"]) for row in rows} == {("recognised", "text_disagrees")}


def test_a_part_may_have_no_clips_and_knows_texts_of_others(tmp_path, hear):
    hear()
    made = coded_folder(tmp_path, {"a.wav": [5.0, 4.0]})
    write_json(made.clips_path / "segment.json", {"shard": "0/2"})
    give(made, {"id": "f" * 16, "text": "of another part"})
    report, rows = run(made)
    assert (report.partial, len(rows)) == (False, 2)
    made.clips = []
    made.save()
    report, rows = run(made)
    assert (report.partial, report.clips, rows) == (False, 0, [])
    assert report.metrics()["kept"] == 0.0
    assert report.summary()
    assert read_transcripts(tmp_path / "t.jsonl") == {}
