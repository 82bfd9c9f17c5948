"""Datasets as versions: DVC reruns what changed, and gives back the same bytes by hash."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kamerton.core.files import read_json, read_jsonl, sha256_file, sha256_tree
from tests.dvc_project import DATA_STAGES, DvcProject, add_recording, environment_for
from tests.dvc_project import make_voice_project as make

pytest.importorskip("dvc", reason="dvc is not installed: pip install 'kamerton[pipeline]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "very-secret"}


@pytest.fixture(scope="module")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> DvcProject:
    """A project whose dataset is made and committed; copied by every test that changes it."""
    project = make(repository, tmp_path_factory.mktemp("finished") / "voice")
    project.dvc("add", "data/raw")
    assert project.repro() == DATA_STAGES
    project.commit("first dataset")
    return project


@pytest.fixture
def project(finished: DvcProject, tmp_path: Path) -> DvcProject:
    folder = tmp_path / "voice"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return DvcProject(folder, environment_for(folder))


def content(project: DvcProject) -> str:
    card = read_json(project.folder / "data/dataset/dataset.json", produced_by="dataset")
    return str(card["content_sha256"])


def test_only_what_depends_on_a_change_runs(project: DvcProject) -> None:
    assert project.repro() == []
    project.set_params(analyze={"worst_clips": 3})
    assert project.repro() == ["analyze"]
    project.set_params(dataset={"split_seed": 99})
    assert project.repro() == ["dataset", "analyze"]
    project.set_params(train={"max_steps": 7})
    assert project.repro() == []


def cached(project: DvcProject) -> dict[Path, int]:
    """Files of finished work: when each was written."""
    files = (project.folder / ".kamerton").glob("*/??/*/*")
    return {file: file.stat().st_mtime_ns for file in files}


def test_a_new_recording_is_the_only_one_cut(project: DvcProject) -> None:
    before = cached(project)
    recordings = len(list((project.folder / ".kamerton/segment").glob("*/*")))
    add_recording(project.folder, 7)
    assert project.repro() == DATA_STAGES
    after = cached(project)
    assert {file: after[file] for file in before} == before
    assert len(list((project.folder / ".kamerton/segment").glob("*/*"))) == recordings + 1
    # The clips of the others are the same files to DVC: only one is new to a remote.
    assert len(list((project.folder / "data/clips/audio").iterdir())) == recordings + 1
    assert "up to date" in project.dvc("status", "--with-deps", "analyze")


def test_a_correction_cuts_nothing_again(project: DvcProject) -> None:
    before, folder = cached(project), project.folder
    clip = read_jsonl(folder / "data/clips/clips.jsonl", produced_by="segment")[0]["id"]
    corrections = "id,text\n" + f"{clip},a garden of letters\n"
    (folder / "data/raw/corrections.csv").write_text(corrections, encoding="utf-8")
    clips = sha256_tree(folder / "data/clips/audio")
    assert project.repro() == DATA_STAGES
    assert cached(project) == before
    assert sha256_tree(folder / "data/clips/audio") == clips
    rows = read_jsonl(folder / "data/dataset/manifest.jsonl", produced_by="dataset")
    assert {row["text"] for row in rows if row["id"] == clip} == {"a garden of letters"}


def test_an_experiment_runs_and_is_listed(project: DvcProject) -> None:
    known = content(project)
    changes = ["segment.max_inner_pause_seconds=1.0", "segment.target_seconds=6.0"]
    options = [word for change in changes for word in ("-S", change)]
    project.dvc("exp", "run", "--name", "longer", *options, "analyze")
    assert content(project) != known
    shown = json.loads(project.dvc("exp", "show", "--json"))
    listed = [one for commit in shown for one in commit.get("experiments") or []]
    assert [one["name"] for one in listed] == ["longer"]
    (longer,) = listed
    values = longer["revs"][0]["data"]["params"]["params.yaml"]["data"]["segment"]
    assert values["target_seconds"] == 6.0
    assert values["max_inner_pause_seconds"] == 1.0
    # Back to what is committed, without running anything.
    project.git("checkout", "--", ".")
    project.dvc("checkout", "--with-deps", "analyze")
    assert content(project) == known
    assert project.repro() == []


def comes_back(project: DvcProject, **credentials: str) -> None:
    """Push, lose everything, pull: the same bytes, and nothing left to run."""
    known = project.hashes()
    project.dvc("push", **credentials)
    shutil.rmtree(project.folder / "data/raw")
    project.lose_data(cache=True)
    project.dvc("pull", "--with-deps", "analyze", **credentials)
    assert project.hashes() == known
    assert project.repro() == []


def test_a_folder_as_remote(project: DvcProject, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    comes_back(project)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Address of an S3 server on loopback with the bucket `voices`."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed: pip install 'kamerton[s3]'")
    pytest.importorskip("moto", reason="moto is not installed (extra 'dev')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            answer(f"{address}/voices", server)
            yield address
        finally:
            server.terminate()


def answer(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Make a bucket as soon as the server listens."""
    for _ in range(300):
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "the S3 server ended"
            time.sleep(0.1)
    raise AssertionError("the S3 server does not answer")


def test_s3_as_remote_with_credentials_of_the_environment(
    project: DvcProject, s3_server: str
) -> None:
    project.dvc("remote", "add", "--default", "store", "s3://voices/datasets")
    project.dvc("remote", "modify", "store", "endpointurl", s3_server)
    assert "redential" in project.dvc("push", fails=True)  # none given: it says so
    comes_back(project, **CREDENTIALS)
    written = "".join(path.read_text() for path in (project.folder / ".dvc").glob("config*"))
    assert s3_server in written
    assert not any(value in written for value in CREDENTIALS.values())


def test_a_version_is_restored_by_hash(project: DvcProject) -> None:
    first = project.git("rev-parse", "HEAD").strip()
    known, data = content(project), tree(project)
    add_recording(project.folder, 8)
    project.set_params(segment={"pad_seconds": 0.05})
    assert project.repro() == DATA_STAGES
    project.dvc("add", "data/raw")
    second = project.commit("second dataset")
    changed, changed_data = content(project), tree(project)
    assert changed != known

    project.git("checkout", "--quiet", first, "--", "dvc.lock")
    project.dvc("checkout", "data/dataset")
    assert (content(project), tree(project)) == (known, data)
    # All of the second version again, down to the recordings.
    project.git("checkout", "--quiet", second, "--", ".")
    project.lose_data(cache=False)
    project.dvc("checkout", "--with-deps", "analyze")
    assert (content(project), tree(project)) == (changed, changed_data)
    assert project.repro() == []


def tree(project: DvcProject) -> str:
    return sha256_tree(project.folder / "data/dataset")


def test_a_pod_pulls_a_dataset_without_git(project: DvcProject, tmp_path: Path) -> None:
    """With dvc.yaml, dvc.lock and .dvc/config alone, as an image or a ConfigMap brings them."""
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    project.dvc("push")
    folder = tmp_path / "pod"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project.folder / name, folder / name)
    programs = tmp_path / "bin"  # neither git nor anything else
    programs.mkdir()
    pod = DvcProject(folder, {**environment_for(folder), "PATH": str(programs)})
    pod.dvc("config", "core.no_scm", "true")
    pod.dvc("pull", "data/dataset")
    assert tree(pod) == tree(project)
    assert not (folder / "data/clips").exists()
    checked = pod.run(sys.executable, "-m", "kamerton", "check", "data/dataset", "--json")
    assert json.loads(checked)["content_sha256"] == content(project)


def test_links_instead_of_copies(project: DvcProject) -> None:
    """Outputs are then read-only links into DVC's cache: a stage must never write into them."""
    project.dvc("config", "cache.type", "hardlink,symlink")
    project.dvc("checkout", "--relink", "--with-deps", "analyze")
    shards = sorted((project.folder / "data/clips/audio").iterdir())
    assert all(shard.stat().st_nlink > 1 or shard.is_symlink() for shard in shards)
    known, kept = content(project), {file: sha256_file(file) for file in cached(project)}
    add_recording(project.folder, 9)
    assert project.repro() == DATA_STAGES
    assert content(project) != known
    assert "up to date" in project.dvc("status", "--with-deps", "analyze")
    # What was linked is unharmed: the first version comes back.
    assert {file: sha256_file(file) for file in kept} == kept
    (project.folder / "data/raw/09.wav").unlink()
    (project.folder / "data/raw/09.srt").unlink()
    project.git("checkout", "--quiet", "--", "dvc.lock")
    project.dvc("checkout", "--with-deps", "analyze")
    assert content(project) == known
    assert project.repro() == []
