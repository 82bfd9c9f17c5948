"""The images: what their files promise, and, where an engine answers, that one builds and works."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kamerton import __version__
from kamerton.stages.spec import STAGES

ROOT = Path(__file__).parents[2]
IMAGES = ("data", "train", "serve")
BASE_VARIABLE = "KAMERTON_TEST_BASE"


def containerfile(name: str) -> str:
    return (ROOT / "images" / name / "Containerfile").read_text(encoding="utf-8")


def extras(name: str) -> set[str]:
    (given,) = re.findall(r"^ARG EXTRAS=(.+)$", containerfile(name), flags=re.M)
    return set(given.split(","))


def project() -> dict[str, list[str]]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": data["dependencies"], **data["optional-dependencies"]}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_pinned_slim_and_not_root(name: str) -> None:
    text = containerfile(name)
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, flags=re.M)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    assert set(re.findall(r"^FROM (\S+)", text, flags=re.M)) == {"${BASE}"}
    users = re.findall(r"^USER (\S+)$", text, flags=re.M)
    assert users[-1:] == ["1000:1000"]
    # The compiler and the sources stay in the first stage.
    final = text.rpartition("FROM ${BASE}")[2]
    assert "apt-get" not in final
    assert "COPY . ." not in final


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_extras_that_exist_and_nothing_of_gpl(name: str) -> None:
    assert extras(name) <= set(project())
    assert "demo" not in extras(name)
    assert "espeak" not in containerfile(name).lower()
    assert "kubeflow" not in extras(name)  # kfp is for compiling, not for running


@pytest.mark.parametrize("name", ["data", "train"])
def test_the_work_cache_lies_where_a_cluster_mounts_its_workspace(name: str) -> None:
    """Not in the image's own file system: that may be read-only, and ends with the task."""
    text = containerfile(name)
    (cache,) = re.findall(r"KAMERTON_CACHE=(\S+)", text)
    platform = (ROOT / "components/platform.py").read_text(encoding="utf-8")
    (workspace,) = re.findall(r'^WORKSPACE = "(\S+)"', platform, flags=re.M)
    assert cache.startswith(f"{workspace}/")
    assert f"install --directory --owner=1000 --group=1000 {workspace}" in text


def test_the_components_only_use_images_that_are_built() -> None:
    assert {stage.image for stage in STAGES.values()} <= set(IMAGES)


def test_the_stages_of_the_data_image_import_nothing_that_it_has_not() -> None:
    script = """
import sys
for name in ("torch", "mlflow", "whisper", "faster_whisper", "optuna", "jiwer", "kfp", "dvc"):
    sys.modules[name] = None  # an import of it now fails
from kamerton.stages import stage_function
from kamerton.stages.spec import STAGES
print(*[name for name, stage in STAGES.items() if stage.image == "data" and stage_function(name)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["segment", "dataset", "analyze"]


@pytest.mark.parametrize("name", IMAGES)
def test_every_dependency_is_pinned_to_a_version_that_is_allowed(name: str) -> None:
    pins = {}
    for line in (ROOT / "images/constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            package, version = line.split("==")
            assert "+" not in version  # a local version would exist on one machine only
            pins[canonicalize_name(package)] = version
    for extra in ("", *sorted(extras(name))):
        for text in project()[extra]:
            requirement = Requirement(text)
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin, prereleases=True), text


def test_the_build_context_holds_what_the_wheel_is_made_of() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    included = wheel["build"]["targets"]["wheel"].get("force-include", {})
    for needed in ("src", "pyproject.toml", "README.md", "LICENSE", *included):
        path = Path(needed)
        assert allowed & {str(one) for one in (path, *path.parents)}, needed


def engine() -> str:
    """A container engine that answers, or a skip that says why there is none."""
    for program in ("docker", "podman"):
        if shutil.which(program):
            done = subprocess.run([program, "info"], capture_output=True, check=False)
            if done.returncode == 0:
                return program
    return pytest.skip("no container engine answers (docker info, podman info)")


@pytest.fixture(scope="module", params=IMAGES)
def built(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Engine and tag of each image in turn, from `KAMERTON_TEST_BASE` where that is given.

    `PIP_EXTRA_INDEX_URL` may name an index with torch's CPU build, gigabytes smaller.
    """
    program = engine()
    tag = f"kamerton-{request.param}:test-{__version__}"
    command = [program, "build", "-f", f"images/{request.param}/Containerfile", "-t", tag, "."]
    if base := os.environ.get(BASE_VARIABLE):
        command[2:2] = ["--build-arg", f"BASE={base}"]
    index = os.environ.get("PIP_EXTRA_INDEX_URL")
    if index and "ARG INDEX" in containerfile(request.param):
        command[2:2] = ["--build-arg", f"INDEX={index}"]
    if ca := os.environ.get("PIP_CERT"):
        command[2:2] = ["--secret", f"id=ca,src={ca}"]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return program, tag


def run(built: tuple[str, str], *arguments: str, entrypoint: str | None = None) -> str:
    program, tag = built
    options = ["--entrypoint", entrypoint] if entrypoint else []
    command = [program, "run", "--rm", "--network", "none", *options, tag, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.engine
def test_the_built_image_runs_the_command_as_an_ordinary_user(built: tuple[str, str]) -> None:
    assert run(built, "--version").strip() == __version__
    assert run(built, "-u", entrypoint="id").strip() == "1000"
    assert "--recordings" in run(built, "segment", "--help")
    imported = "import numpy, soundfile" + ("" if "-data:" in built[1] else ", torch, mlflow")
    assert run(built, "-c", imported, entrypoint="python3") == ""


@pytest.mark.engine
def test_the_built_image_cuts_a_recording(built: tuple[str, str]) -> None:
    """A stage with its real dependencies, in the container, without a network."""
    if "-data:" not in built[1]:
        pytest.skip("cutting is the data image's work")
    script = """
import numpy, soundfile, subprocess, sys, pathlib
rate = 22050
t = numpy.arange(rate * 2) / rate
speech = 0.2 * numpy.sin(2 * numpy.pi * 160 * t) * (1 + numpy.sin(2 * numpy.pi * 4 * t))
pause = 0.001 * numpy.random.default_rng(0).normal(size=rate)
pathlib.Path("raw").mkdir()
soundfile.write("raw/a.wav", numpy.concatenate([pause, speech, pause, speech, pause]), rate)
done = subprocess.run([sys.executable, "-m", "kamerton", "segment", "--recordings", "raw",
                       "--clips", "clips", "--report", "report.html", "--json"])
assert pathlib.Path("clips/clips.jsonl").exists() and pathlib.Path("report.html").exists()
sys.exit(done.returncode)
"""
    assert '"stage": "segment"' in run(built, "-c", script, entrypoint="python3")
