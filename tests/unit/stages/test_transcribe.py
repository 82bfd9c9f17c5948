import numpy as np
import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.stages import transcribe as stage
from tests.clip_folder import RATE_HZ, ClipFolder, ScriptedRecogniser, read_lines

PARAMS = Params().with_overrides({"transcribe": {"model": "tiny"}})


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
        "backend": "whisper",
        "model": "tiny",
        "origin": "recognised",
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
    assert seen == [(0.0, 3.0), (1.0, 3.0), (3.0, 3.0)]


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
    (made.clips_path / made.clips[0]["file"]).write_bytes(b"fLaC, not really")
    listen(["one"])
    with pytest.raises(InputCorruptError, match="cannot be decoded") as caught:
        stage.transcribe(made.clips_path, tmp_path / "t.jsonl", PARAMS)
    assert "kamerton segment" in caught.value.hint
