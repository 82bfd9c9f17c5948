import json
import shutil

import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import InputCorruptError, InputEmptyError, InputMissingError, UsageError
from kamerton.data.epoch_rule import read_recommended_epochs
from kamerton.data.manifest import Dataset
from kamerton.smart_tuner.history import History
from kamerton.stages import analyze as stage
from kamerton.stages.analyze import analyze
from kamerton.stages.dataset import dataset
from tests.clip_folder import ClipFolder, make_dataset, sentence, small_blocks
from tests.unit.smart_tuner.outcomes import run_outcome

PARAMS = Params().with_overrides({"analyze": {"history": "no/history.db"}})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("voice"), clips=9)


@pytest.fixture(scope="module")
def plain(made, tmp_path_factory):
    """One analysis with the parameters as they come: its folder, report and content."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, *run(made, folder)


def run(dataset, folder, params=PARAMS, **options):
    report = analyze(dataset, folder / "analysis.json", folder / "a.html", params, **options)
    return report, json.loads((folder / "analysis.json").read_text("utf-8"))


def test_the_analysis_holds_what_its_contract_names(made, plain):
    folder, report, found = plain
    assert found["clips"] == report.clips == 9
    assert found["hours"] == pytest.approx(18 / 3600, abs=1e-6)
    assert found["dataset_sha256"] == Dataset.open(made).card["content_sha256"]
    assert set(found["quality"]["components"]) == {"noise", "clipping", "bandwidth", "confidence"}
    assert found["quality"]["components"]["noise"] == pytest.approx(2 / 3, abs=1e-4), "30 dB"
    assert found["quality"]["components"]["confidence"] == 1.0
    assert 105.0 < found["complexity"]["measures"]["median_f0_hz"] < 140.0
    assert found["base_epochs"] == 4000
    assert found["recommended_epochs"] == report.recommended_epochs
    assert found["reasons"][0] == "0.01 h of speech is very small: 4000 epochs to begin with"
    assert len(found["worst_clips"]) == 9
    page = (folder / "a.html").read_text("utf-8")
    assert f"Train for {report.recommended_epochs} epochs" in page
    assert page.count("<img") == 3
    assert page.count("<audio") == 6
    assert ("recommended epochs", str(report.recommended_epochs)) in report.summary()
    assert not report.partial


def test_figures_for_the_pipeline_are_those_of_the_file(plain):
    _, report, found = plain
    metrics = report.metrics()
    assert metrics["quality_score"] == found["quality"]["score"]
    assert metrics["complexity_multiplier"] == found["complexity"]["multiplier"]
    assert all(isinstance(value, float) for value in metrics.values())


def test_equal_input_gives_equal_bytes(made, plain, tmp_path):
    run(made, tmp_path)
    for file in ("analysis.json", "a.html"):
        assert (plain[0] / file).read_bytes() == (tmp_path / file).read_bytes()


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ({"accent": True}, "multiplier", 1.2),
        ({"wide_pitch_semitones": 0.01}, "pitch", True),
        ({"variable_tempo_cv": 0.001}, "tempo", True),
    ],
)
def test_parameters_of_complexity_take_effect(made, plain, tmp_path, changed, key, value):
    before = plain[2]
    _, after = run(made, tmp_path, PARAMS.with_overrides({"analyze": changed}))
    assert before["complexity"][key] != after["complexity"][key] == value


def test_limits_and_lists_are_parameters(made, tmp_path):
    params = PARAMS.with_overrides({"analyze": {"max_epochs": 700, "worst_clips": 2}})
    _, found = run(made, tmp_path, params)
    assert found["recommended_epochs"] == 700
    assert len(found["worst_clips"]) == 2
    scores = [clip["score"] for clip in found["worst_clips"]]
    assert scores == sorted(scores)


def test_progress_reaches_its_end(made, tmp_path):
    seen = []
    run(made, tmp_path, on_progress=lambda done, total, _note="": seen.append((done, total)))
    done = [pair[0] for pair in seen]
    assert done == sorted(done)
    assert seen[0] == (0.0, pytest.approx(18.0))
    assert seen[-1] == (pytest.approx(18.0), pytest.approx(18.0))


def test_processes_give_the_same_analysis(made, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_SECONDS_FOR_WORKERS", 1.0)
    monkeypatch.setattr(stage, "_SECONDS_A_TASK", 5.0)
    monkeypatch.setattr(stage, "usable_cores", lambda: 2)
    run(made, tmp_path)
    for file in ("analysis.json", "a.html"):
        assert (plain[0] / file).read_bytes() == (tmp_path / file).read_bytes()


def test_a_clip_that_cannot_be_read_is_named(made, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    for tar in (broken / "shards").iterdir():
        tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(InputCorruptError, match="clip"):
        run(broken, tmp_path)
    assert not (tmp_path / "analysis.json").exists()


def test_recordings_and_advice_are_part_of_it(tmp_path):
    folder = ClipFolder(tmp_path)
    for number in range(30):
        bad = number % 6 == 5
        folder.add(
            sentence(number),
            seconds=2.0,
            source="tape 3.wav" if bad else f"day {number % 2}.wav",
            clip={"snr_db": 8.0 if bad else 45.0, "clipped_share": 0.002 if bad else 0.0},
        )
    folder.save()
    dataset(
        folder.clips_path, folder.transcripts_path, tmp_path / "set", tmp_path / "d.html",
        small_blocks(),
    )  # fmt: skip
    report, found = run(tmp_path / "set", tmp_path)
    assert [r["source"] for r in found["recordings"]] == ["day 0.wav", "day 1.wav", "tape 3.wav"]
    assert found["recordings"][2]["snr_db"] == 8.0
    assert found["recordings"][2]["problems"][-2:] == ["clipping", "noise"]
    assert sum(r["minutes"] for r in found["recordings"]) == pytest.approx(1.0, abs=1e-3)
    (advice,) = found["recommendations"]
    assert advice["source"] == "tape 3.wav"
    assert advice["before"]["quality"] == found["quality"]["score"]
    assert advice["before"]["recommended_epochs"] == found["recommended_epochs"]
    assert advice["without"]["quality"] > advice["before"]["quality"] + 0.05
    assert advice["without"]["hours"] == pytest.approx(found["hours"] * 25 / 30, rel=1e-3)
    assert advice["again"]["hours"] == found["hours"]
    assert report.recommendations == (advice["text"],)
    assert advice["text"].startswith("drop 'tape 3.wav' (10 s, SNR 8 dB; ")
    assert "tape 3.wav" in (tmp_path / "a.html").read_text("utf-8")
    assert found["quality"]["snr_from"] == {"pauses": 30, "waveform": 0}
    assert found["quality"]["measured_share"] == 1.0
    assert found["complexity"]["accent_evidence"] == "unknown"


def test_nothing_is_overwritten_unasked(made, tmp_path):
    run(made, tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        run(made, tmp_path)
    run(made, tmp_path, force=True)


def test_a_missing_dataset_names_its_stage(tmp_path):
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        run(tmp_path / "dataset", tmp_path)


def test_an_empty_dataset_cannot_be_analysed(made, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    card = Dataset.open(made).card | {"clips": 0}
    (empty / "dataset.json").write_text(json.dumps(card))
    (empty / "manifest.jsonl").write_text("")
    with pytest.raises(InputEmptyError, match="holds no clips"):
        run(empty, tmp_path)


def test_history_corrects_the_rule_and_both_are_kept_apart(made, plain, tmp_path):
    rule = plain[2]["rule_epochs"]
    assert plain[2]["recommended_epochs"] == rule
    assert plain[2]["history"]["used_runs"] == 0
    outcome = run_outcome(
        "before", rule_epochs=rule, planned_epochs=float(rule), near_best_epochs=rule // 4
    )
    History(tmp_path / "history.db").add_run(outcome)
    params = Params().with_overrides({"analyze": {"history": str(tmp_path / "history.db")}})
    report, found = run(made, tmp_path, params)
    assert found["rule_epochs"] == rule > found["recommended_epochs"] == report.recommended_epochs
    assert report.metrics()["history_runs"] == found["history"]["used_runs"] == 1
    assert found["rule_confidence"] < found["confidence"] == report.confidence
    assert found["reasons"][: len(found["rule_reasons"])] == found["rule_reasons"]
    assert f"{rule} epochs by the rule" in found["reasons"][-1]
    assert read_recommended_epochs(tmp_path / "analysis.json") == report.recommended_epochs
    page = (tmp_path / "a.html").read_text("utf-8")
    assert f"Train for {report.recommended_epochs} epochs" in page
    assert "before" in page
    assert "earlier runs used" in page
