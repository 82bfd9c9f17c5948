import subprocess

from kamerton.core.environment import environment, git_revision


def _git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_outside_git_there_is_no_revision(tmp_path):
    assert git_revision(tmp_path) == {"commit": None, "dirty": None}


def test_the_lock_of_dvc_does_not_make_a_checkout_dirty(tmp_path):
    _git(tmp_path, "init")
    _git(
        tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-m", "x"
    )
    assert git_revision(tmp_path)["dirty"] is False
    (tmp_path / "dvc.lock").write_text("x")
    assert git_revision(tmp_path)["dirty"] is False
    (tmp_path / "other").write_text("x")
    revision = git_revision(tmp_path)
    assert revision["dirty"] is True
    assert len(revision["commit"]) == 40


def test_environment_names_versions():
    found = environment()
    assert found["packages"]["numpy"]
    assert found["python"].startswith("3.")
