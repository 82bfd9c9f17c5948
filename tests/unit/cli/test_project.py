import json
import shutil
import subprocess

import pytest
import yaml

from kamerton.cli import doctor, main
from kamerton.cli.init import make_project
from kamerton.config.loading import load_params
from kamerton.core.errors import UsageError
from tests.clip_folder import make_dataset


def test_doctor_never_shows_a_secret(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret-value")
    assert main.exit_code(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert "very-secret-value" not in out
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert "WANDB_API_KEY" in findings["secrets set"]["detail"]
    assert findings["torch"]["status"] == "ok"


def test_doctor_gives_a_fix_for_whatever_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: None)
    findings = doctor.diagnose(tmp_path)
    lacking = [f for f in findings if f.status != "ok" and f.name not in {"secrets set", "gpu"}]
    assert {"torch", "dvc", "ffmpeg", "openai-whisper"} <= {finding.name for finding in lacking}
    assert all(finding.fix or "unknown" in finding.detail for finding in lacking)
    monkeypatch.chdir(tmp_path)
    assert main.exit_code(["doctor"]) == 5
    assert "kamerton[audio]" in capsys.readouterr().err


def test_a_new_project_is_complete_and_valid(tmp_path):
    folder = tmp_path / "моя voice"
    lines = list(make_project(folder, force=False))
    assert "dvc repro" in lines[-1]
    params = load_params(folder / "params.yaml")
    assert params.dataset.name.isascii()
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    given = yaml.safe_load((folder / "params.yaml").read_text())
    assert {name for stage in stages.values() for name in stage["params"]} <= set(given)
    assert (folder / "components" / "segment.py").exists()
    assert (folder / ".dvc").is_dir()
    status = subprocess.run(
        ["git", "-C", str(folder), "status", "--short"], capture_output=True, text=True, check=True
    )
    assert "data/" not in status.stdout


def test_a_project_is_not_overwritten(tmp_path):
    (tmp_path / "params.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"params\.yaml"):
        list(make_project(tmp_path, force=False))
    assert (tmp_path / "params.yaml").read_text() == "mine"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["params.yaml"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_project_inside_a_repository_becomes_a_dvc_subfolder(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    list(make_project(tmp_path / "voices" / "anna", force=False))
    assert not (tmp_path / "voices" / "anna" / ".git").exists()
    assert (tmp_path / "voices" / "anna" / ".dvc" / "config").exists()


def test_a_project_is_not_made_in_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        list(make_project(tmp_path / "file", force=True))


def test_check_lists_what_is_wrong_and_ends_with_one(tmp_path, capsys):
    made = make_dataset(tmp_path, clips=9)
    assert main.exit_code(["check", str(made), "--deep", "-q"]) == 0
    assert "valid" in capsys.readouterr().out
    (made / "metadata.csv").unlink()
    (made / "train.jsonl").write_text("")
    assert main.exit_code(["check", str(made), "-q", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["state"] == "damaged"
    assert len(json.loads(told.out)["problems"]) == 2
    assert "2 things are wrong" in told.err
    assert main.exit_code(["check", str(tmp_path / "none")]) == 4
