"""The promote stage on a real MLflow database: verdicts, repetition, and being cut off."""

import json

import pytest

from kamerton.core.errors import GateNotMetError, InputCorruptError, InputMissingError, UsageError
from kamerton.stages.promote import promote
from kamerton.tracking.model_registry import ModelRegistry
from tests.evaluations import small_params, utterance, write_evaluation, write_model

GOOD = {"mcd": 5.0}
COUNT = 30


class Project:
    """A folder with an evaluated voice, and a registered name of its own."""

    def __init__(self, folder, uri, name):
        self.folder = folder
        self.params = small_params(
            folder, promote={"registered_model": name}, tracking={"mlflow_uri": uri}
        )
        self.registry = ModelRegistry.of(self.params.tracking, self.params.promote)

    def voice(self, name, *, rows=None, changes=None, **scores):
        """An evaluated voice whose every sentence has these scores."""
        model = write_model(self.folder / name / "model", weights=name.encode())
        rows = rows or [utterance(index, **{**GOOD, **scores}) for index in range(COUNT)]
        write_evaluation(self.folder / name / "evaluation", rows, model, **(changes or {}))
        return name

    def promote(self, name, **options):
        place = self.folder / name
        return promote(
            place / "evaluation",
            place / "model",
            place / "promotion.json",
            self.params,
            force=True,
            **options,
        )

    def verdict(self, name):
        return json.loads((self.folder / name / "promotion.json").read_text())

    def versions(self):
        client = self.registry._client()
        found = client.search_model_versions(f"name='{self.registry.name}'")
        return sorted(str(one.version) for one in found)

    def champion(self):
        found = self.registry.champion()
        return found.version if found else None


@pytest.fixture
def project(tmp_path, mlflow_database, request):
    return Project(tmp_path, mlflow_database, f"voice-{abs(hash(request.node.nodeid)) % 10**9}")


def test_the_first_good_voice_becomes_champion(project):
    report = project.promote(project.voice("a"))
    assert (report.verdict, report.version, report.previous_champion) == ("promoted", "1", None)
    assert project.champion() == "1"
    written = project.verdict("a")
    assert written["verdict"] == "promoted"
    assert written["version"] == "1"
    assert all(gate["passed"] for gate in written["gates"])
    assert any("no champion before" in reason for reason in written["reasons"])


def test_a_voice_that_fails_a_gate_is_rejected_with_the_reason_and_not_registered(project):
    report = project.promote(project.voice("bad", wrong_words=2))
    assert (report.verdict, report.version) == ("rejected", None)
    assert project.champion() is None
    written = project.verdict("bad")
    assert "word error rate above that of copy-synthesis" in written["reasons"][0]
    failed = [gate["name"] for gate in written["gates"] if not gate["passed"]]
    assert failed == ["wer_over_ceiling"]


def test_require_fails_after_the_verdict_is_written(project):
    with pytest.raises(GateNotMetError, match="word error rate"):
        project.promote(project.voice("bad", wrong_words=2), require=True)
    assert project.verdict("bad")["verdict"] == "rejected"


def test_require_of_a_good_voice_changes_nothing(project):
    assert project.promote(project.voice("a"), require=True).verdict == "promoted"


def test_promoting_again_keeps_the_version(project):
    project.promote(project.voice("a"))
    again = project.promote("a")
    assert (again.verdict, again.version) == ("unchanged", "1")
    assert project.versions() == ["1"]
    assert project.promote("a", require=True).verdict == "unchanged"


def test_a_champion_that_fails_a_gate_raised_since_is_rejected_but_not_dethroned(project):
    project.promote(project.voice("a"))
    project.params = project.params.with_overrides({"promote": {"min_items": COUNT + 1}})
    report = project.promote("a")
    assert (report.verdict, report.version) == ("rejected", "1")
    assert "stays it" in report.reasons[-1]
    assert project.champion() == "1"
    with pytest.raises(GateNotMetError, match="31 wanted"):
        project.promote("a", require=True)


def test_a_better_voice_takes_over_and_knows_whom_it_followed(project):
    project.promote(project.voice("a"))
    report = project.promote(project.voice("b", mcd=4.0))
    assert (report.verdict, report.version, report.previous_champion) == ("promoted", "2", "1")
    assert project.champion() == "2"
    assert project.registry.champion().tags["promotion.previous_champion"] == "1"


def test_a_worse_voice_that_passes_the_absolute_gates_is_stopped_by_the_champion(project):
    project.promote(project.voice("a"))
    report = project.promote(project.voice("worse", mcd=6.0))
    assert report.verdict == "rejected"
    assert [gate.name for gate in report.gates if not gate.passed] == ["mcd_against_champion_db"]
    assert project.champion() == "1"


def test_a_champion_measured_on_other_sentences_is_not_compared(project):
    project.promote(project.voice("a", mcd=4.0))
    rows = [utterance(index + 100, mcd=6.0) for index in range(COUNT)]
    report = project.promote(project.voice("b", rows=rows))
    assert report.verdict == "promoted"
    assert any("measured on other test sentences" in reason for reason in report.reasons)


def test_a_champion_whose_evaluation_is_lost_does_not_block(project):
    project.promote(project.voice("a"))
    stored = project.registry.folder(project.registry.champion(), "evaluation")
    (stored / "metrics.json").unlink()
    report = project.promote(project.voice("b"))
    assert report.verdict == "promoted"
    assert any("is lost" in reason for reason in report.reasons)


@pytest.mark.parametrize("step", ["register", "crown"])
def test_a_promotion_cut_off_at_any_step_is_completed_without_a_second_version(
    project, monkeypatch, step
):
    project.voice("a")

    class Killed(BaseException):
        pass

    def killed(*_args, **_kwargs):
        raise Killed

    method = {"register": "create_model_version", "crown": "set_registered_model_alias"}[step]
    with monkeypatch.context() as broken:
        broken.setattr(type(project.registry._client()), method, killed)
        with pytest.raises(Killed):
            project.promote("a")
    assert project.champion() is None
    assert not (project.folder / "a" / "promotion.json").exists()

    report = project.promote("a")
    assert (report.verdict, report.version) == ("promoted", "1")
    assert project.versions() == ["1"]
    assert project.champion() == "1"


def test_a_promotion_cut_off_before_its_verdict_was_written_is_found_done(project, monkeypatch):
    project.voice("a")

    class Killed(BaseException):
        pass

    def killed(*_args):
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr("kamerton.stages.promote.write_json", killed)
        with pytest.raises(Killed):
            project.promote("a")
    report = project.promote("a")
    assert (report.verdict, report.version) == ("unchanged", "1")


def test_the_lineage_is_on_the_version(project):
    project.promote(project.voice("a"))
    tags = project.registry.champion().tags
    assert tags["dataset.sha256"] == "d" * 64
    assert tags["params.sha256"] == "p" * 64
    assert tags["seed"] == "1234"
    assert {"eval.set_sha256", "metrics.def_id", "gate.policy_sha256"} <= set(tags)


def test_the_weights_must_be_those_that_were_evaluated(project):
    project.voice("a")
    (project.folder / "a" / "model" / "best_model.safetensors").write_bytes(b"other")
    with pytest.raises(InputCorruptError, match="another model"):
        project.promote("a")
    assert project.champion() is None


def test_missing_inputs_name_their_stage(project, tmp_path):
    project.voice("a")
    with pytest.raises(InputMissingError, match="'evaluate' stage"):
        promote(tmp_path / "no", tmp_path / "a/model", tmp_path / "p.json", project.params)
    with pytest.raises(InputMissingError, match="'train' stage"):
        promote(tmp_path / "a/evaluation", tmp_path / "no", tmp_path / "p.json", project.params)


def test_an_existing_verdict_is_kept_without_force(project, tmp_path):
    project.voice("a")
    verdict = tmp_path / "a" / "promotion.json"
    verdict.write_text("{}")
    with pytest.raises(UsageError, match="exists"):
        promote(tmp_path / "a/evaluation", tmp_path / "a/model", verdict, project.params)


def test_numbers_and_lines_for_people(project):
    report = project.promote(project.voice("a"))
    assert report.metrics()["version"] == 1.0
    assert report.metrics()["gates"] == report.metrics()["gates_passed"]
    assert ("verdict", "promoted") in report.summary()
    rejected = project.promote(project.voice("bad", wrong_words=2))
    assert "version" not in rejected.metrics()
    assert rejected.metrics()["passed"] == 0.0
    assert not rejected.partial
