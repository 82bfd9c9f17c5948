"""The evaluate stage, with a voice and a recogniser that do as they are told."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from kamerton.core.errors import InputEmptyError, InputMissingError, UsageError
from kamerton.core.files import sha256_file
from kamerton.stages.evaluate import evaluate
from kamerton.stages.promote import promote
from kamerton.tracking.model_registry import EVALUATION_TAG, MODEL_TAG, ModelRegistry
from tests.evaluations import (
    FakeRecogniser,
    FakeVoice,
    sentence,
    small_params,
    spoken,
    utterance,
    write_evaluation,
    write_model,
)
from tests.tiny_corpus import write_dataset

COUNT = 4
TEXTS = [sentence(index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "dataset"
    clips = [("test", text, spoken(index)) for index, text in enumerate(TEXTS)]
    clips.append(("train", "another text", spoken(99)))
    return write_dataset(folder, clips, 16_000)


class Workshop:
    """Runs the stage in a folder of its own; keeps what it was run with."""

    def __init__(self, monkeypatch, folder, dataset):
        self._monkeypatch, self.folder, self.dataset = monkeypatch, folder, dataset
        self.model = write_model(folder / "model")
        monkeypatch.setattr("kamerton.model.voice.Voice.load", lambda _: self.voice)

    def run(self, *, voice=None, recogniser=None, params=None, name="evaluation", **options):
        self.voice = voice or FakeVoice(TEXTS)
        self.recogniser = recogniser or FakeRecogniser(TEXTS)
        self._monkeypatch.setattr(
            "kamerton.data.transcription.load_recogniser", lambda *_: self.recogniser
        )
        return evaluate(
            self.dataset,
            self.model,
            self.folder / name,
            self.folder / f"{name}.html",
            params or small_params(self.folder),
            **options,
        )

    def crown(self, voice, *, rows):
        """Make ``voice`` champion, by an evaluation of these rows."""
        model = write_model(self.folder / "old" / "model", weights=b"old")
        evaluation = write_evaluation(self.folder / "old" / "evaluation", rows, model)
        tags = {MODEL_TAG: sha256_file(model / "best_model.safetensors"), EVALUATION_TAG: "e"}
        version = self.registry.register(model, evaluation, tags=tags, metrics={})
        self.registry.crown(version, previous=None)
        stored = self.registry.folder(version, "model")
        self._monkeypatch.setattr(
            "kamerton.model.voice.Voice.load",
            lambda folder: voice if folder == stored else self.voice,
        )

    def metrics(self, name="evaluation"):
        return json.loads((self.folder / name / "metrics.json").read_text())

    def utterances(self, name="evaluation"):
        lines = (self.folder / name / "utterances.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def workshop(monkeypatch, tmp_path, dataset):
    return Workshop(monkeypatch, tmp_path, dataset)


@pytest.fixture(scope="module")
def good(tmp_path_factory, dataset):
    """One run of a good voice, for the tests that only look at it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        workshop = Workshop(monkeypatch, tmp_path_factory.mktemp("good"), dataset)
        workshop.progress = []
        workshop.report = workshop.run(
            on_progress=lambda done, total, note="": workshop.progress.append((done / total, note))
        )
        return workshop


def test_a_good_voice_is_measured_against_its_ceiling(good):
    metrics = good.metrics()["metrics"]
    assert metrics["wer"] == {
        "value": 0.0, "low": 0.0, "high": 0.0, "ceiling": 0.0, "original": 0.0, "n": COUNT,
    }  # fmt: skip
    assert 0 < metrics["mcd_dtw"]["ceiling"] < metrics["mcd_dtw"]["value"] < 8
    assert metrics["estoi_dtw"]["value"] < metrics["estoi_dtw"]["ceiling"] <= 1
    assert metrics["mcd_dtw"]["low"] <= metrics["mcd_dtw"]["value"] <= metrics["mcd_dtw"]["high"]
    assert set(good.metrics()["coverage"].values()) == {1.0}
    assert good.report.scorecard.attention["aligned_share"] == 1.0
    assert not good.report.partial


def test_only_the_test_split_is_read_in_order_of_id(good):
    assert good.voice.asked == TEXTS
    assert [row["text"] for row in good.utterances()] == TEXTS


def test_samples_are_sound_files_of_the_shown_sentences(good):
    samples = sorted((good.folder / "evaluation" / "samples").iterdir())
    assert len(samples) == 2 * 3
    wave, rate_hz = soundfile.read(samples[0])
    assert rate_hz == 16_000
    assert np.abs(wave).max() > 0.1


def test_fewer_items_and_another_vocoder_change_what_they_should(good, workshop):
    workshop.run(
        params=small_params(
            workshop.folder, evaluate={"max_items": 2, "griffin_lim_iterations": 16}
        )
    )
    assert workshop.voice.asked == TEXTS[:2]
    few, more = good.metrics(), workshop.metrics()
    assert more["items"] == 2
    assert few["definitions"]["vocoder"] != more["definitions"]["vocoder"]
    assert few["definitions_sha256"] != more["definitions_sha256"]
    assert few["eval_set_sha256"] != more["eval_set_sha256"]
    ceilings = [
        found["copy_synthesis"]["mcd_dtw"]["value"]
        for found in (good.utterances()[0], workshop.utterances()[0])
    ]
    assert ceilings[0] != ceilings[1]


def test_every_way_to_fail_is_counted_where_it_belongs(workshop):
    mistakes = {TEXTS[0]: "wrong", TEXTS[1]: TEXTS[1] + " extra"}
    report = workshop.run(
        voice=FakeVoice(TEXTS, silent=TEXTS[:1], broken=TEXTS[1:2], runaways=TEXTS[2:]),
        recogniser=FakeRecogniser(TEXTS, mistakes),
    )
    found, rows = workshop.metrics(), workshop.utterances()
    assert found["metrics"]["wer"]["value"] == pytest.approx(6 / 20)
    assert found["half_wrong_share"] == pytest.approx(1 / 4)
    assert rows[0]["heard"]["original"].rstrip(".") == TEXTS[0]
    errors = rows[0]["errors"]["synthesis"]
    assert (errors["substitutions"], errors["deletions"]) == (1, 4)

    assert found["attention"]["aligned_share"] == 0.5
    assert found["attention"]["runaways"] == 2
    assert found["attention"]["diagonality_worst"] == 0.0

    silent = rows[0]["synthesis"]["mcd_dtw"]
    assert (silent["value"], silent["status"]) == (None, "invalid")
    assert "not finite" in rows[1]["synthesis"]["estoi_dtw"]["reason"]
    assert found["coverage"]["mcd_dtw"] == pytest.approx(2 / 4)
    failed = [gate.name for gate in report.gates if not gate.passed]
    assert {"items", "coverage_mcd_dtw", "coverage_estoi_dtw", "aligned_share"} <= set(failed)
    assert "the synthesis is silent" in (workshop.folder / "evaluation.html").read_text()


def test_another_run_gives_the_same_bytes(good, workshop):
    workshop.run()
    for name in ("evaluation/metrics.json", "evaluation/utterances.jsonl", "evaluation.html"):
        assert (workshop.folder / name).read_bytes() == (good.folder / name).read_bytes()


def test_numbers_for_kubeflow_are_flat_and_finite(good):
    metrics = good.report.metrics()
    assert metrics["items"] == COUNT
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    wanted = {"wer", "wer_ceiling", "wer_original", "mcd_dtw", "attention_aligned_share"}
    assert wanted <= set(metrics)


def test_the_terminal_gets_median_and_worst(good):
    summary = dict(good.report.summary())
    assert summary["test sentences"] == str(COUNT)
    assert summary["diagonality"].count("1.00") == 2
    assert "copy-synthesis" in summary["mcd_dtw"]


def test_progress_reaches_the_end(good):
    shares = [share for share, _ in good.progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {"speaking", "writing down"} <= {note for _, note in good.progress}


@pytest.mark.parametrize("name", ["evaluation/metrics.json", "evaluation.html"])
def test_existing_outputs_are_kept_without_force(workshop, name):
    existing = workshop.folder / name
    existing.parent.mkdir(exist_ok=True)
    existing.write_text("old")
    with pytest.raises(UsageError, match="exists"):
        workshop.run()
    assert existing.read_text() == "old"


@pytest.fixture
def ruled(workshop, mlflow_database, request):
    """A workshop whose registry can have a champion."""
    workshop.params = small_params(
        workshop.folder,
        promote={"registered_model": f"voice-{abs(hash(request.node.nodeid)) % 10**9}"},
        tracking={"mlflow_uri": mlflow_database},
    )
    workshop.params = workshop.params.with_overrides(
        {
            "promote": {
                "min_items": COUNT,
                "max_mcd_over_ceiling_db": 20.0,
                "min_estoi_share_of_ceiling": 0.0,
            }
        }
    )
    workshop.registry = ModelRegistry.of(workshop.params.tracking, workshop.params.promote)
    return workshop


def test_a_champion_of_another_test_set_reads_this_one_and_is_held_against_the_candidate(ruled):
    ruled.crown(FakeVoice(TEXTS, snr_db=40), rows=[utterance(index) for index in range(50, 55)])
    report = ruled.run(
        voice=FakeVoice(TEXTS, snr_db=5),
        recogniser=FakeRecogniser(TEXTS * 2),
        params=ruled.params,
    )
    assert "read the same sentences" in report.note
    again = ruled.metrics("evaluation/champion")
    assert again["eval_set_sha256"] == ruled.metrics()["eval_set_sha256"]
    mcd = [card["metrics"]["mcd_dtw"]["value"] for card in (again, ruled.metrics())]
    assert mcd[0] + 2 < mcd[1]
    failed = [gate.name for gate in report.gates if not gate.passed]
    assert failed == ["mcd_against_champion_db"]

    place = ruled.folder / "evaluation"
    verdict = promote(place, ruled.model, ruled.folder / "promotion.json", ruled.params)
    assert verdict.verdict == "rejected"
    assert "measured again" in verdict.reasons[-1]
    assert ruled.registry.champion().version == "1"


def test_a_champion_that_cannot_speak_any_more_costs_nothing(ruled):
    class Broken:
        description = FakeVoice(TEXTS).description

        def read(self, texts, *, seed=0, speaker=None):
            raise UsageError("no word of it", hint="none")

    ruled.crown(Broken(), rows=[utterance(index) for index in range(50, 55)])
    report = ruled.run(params=ruled.params)
    assert "could not be compared with: no word of it" in report.note
    assert not (ruled.folder / "evaluation" / "champion").exists()


def test_a_registry_that_does_not_answer_costs_nothing(ruled, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = ruled.params.with_overrides({"tracking": {"mlflow_uri": "http://127.0.0.1:9"}})
    assert "could not be compared with: MLflow at http://127.0.0.1:9" in ruled.run(params=dead).note


def test_each_sentence_is_read_by_the_one_who_said_it(workshop, dataset, tmp_path):
    workshop.run()
    assert workshop.voice.speakers == [None] * COUNT  # there is no choice
    several = tmp_path / "several"
    shutil.copytree(dataset, several)
    manifest = several / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    names = {
        text: name for text, name in zip(TEXTS, ("anna", "boris", "anna", "anna"), strict=True)
    }
    for row in rows:
        row["speaker"] = names.get(row["text"], "clara")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workshop.dataset = several
    workshop.run(name="again")
    read = dict(zip(workshop.voice.asked, workshop.voice.speakers, strict=True))
    assert read == names


def test_a_dataset_without_test_sentences_is_an_error(workshop, tmp_path):
    workshop.dataset = write_dataset(tmp_path / "d", [("train", "abc", spoken(0))], 16_000)
    with pytest.raises(InputEmptyError, match="no test sentence"):
        workshop.run()
    assert not (tmp_path / "evaluation").exists()


def test_a_missing_dataset_names_its_stage(workshop, tmp_path):
    workshop.dataset = tmp_path / "nothing"
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        workshop.run()


def test_a_missing_model_names_its_stage(dataset, tmp_path):
    with pytest.raises(InputMissingError, match="'train' stage"):
        evaluate(
            dataset, tmp_path / "no", tmp_path / "e", tmp_path / "e.html", small_params(tmp_path)
        )
