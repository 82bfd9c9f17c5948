import json

import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import InputEmptyError, InputMissingError, UsageError
from kamerton.data.manifest import Dataset
from kamerton.stages.analyze import analyze
from tests.clip_folder import make_dataset

PARAMS = Params()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("voice"), clips=9)


def run(dataset, folder, params=PARAMS, **options):
    report = analyze(dataset, folder / "analysis.json", folder / "a.html", params, **options)
    return report, json.loads((folder / "analysis.json").read_text("utf-8"))


def test_the_analysis_holds_what_its_contract_names(made, tmp_path):
    report, found = run(made, tmp_path)
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
    page = (tmp_path / "a.html").read_text("utf-8")
    assert f"Train for {report.recommended_epochs} epochs" in page
    assert page.count("<img") >= 4
    assert page.count("<audio") == 6
    assert ("recommended epochs", str(report.recommended_epochs)) in report.summary()
    assert not report.partial


def test_figures_for_the_pipeline_are_those_of_the_file(made, tmp_path):
    report, found = run(made, tmp_path)
    metrics = report.metrics()
    assert metrics["quality_score"] == found["quality"]["score"]
    assert metrics["complexity_multiplier"] == found["complexity"]["multiplier"]
    assert all(isinstance(value, float) for value in metrics.values())


def test_equal_input_gives_equal_bytes(made, tmp_path):
    for name in ("one", "two"):
        run(made, tmp_path / name)
    for file in ("analysis.json", "a.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ({"accent": True}, "multiplier", 1.2),
        ({"wide_pitch_semitones": 0.01}, "pitch", True),
        ({"variable_tempo_cv": 0.001}, "tempo", True),
    ],
)
def test_parameters_of_complexity_take_effect(made, tmp_path, changed, key, value):
    _, before = run(made, tmp_path / "before")
    _, after = run(made, tmp_path / "after", PARAMS.with_overrides({"analyze": changed}))
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
    assert seen == [(n, 18) for n in range(18)] + [(18, 18)]


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
