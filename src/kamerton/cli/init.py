"""Make a new voice project in a folder."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kamerton
from kamerton.core.errors import PipelineError, ToolMissingError, UsageError
from kamerton.core.files import write_text

FILES = ("pipeline.py", "dvc.yaml")
PARAMS = """\
# A voice project. What is not written here has its default: `kamerton params docs`.

text:
  language: en            # ISO 639 code of your recordings' language

transcribe:
  backend: faster-whisper # or whisper, the reference implementation
  model: large-v3         # a Whisper model's name, or a path to one

dataset:
  name: {name}
  speaker: {name}

promote:
  registered_model: {name}

# All defaults. They stand here because DVC asks for every section that a stage depends on.
audio: {{}}
segment: {{}}
analyze: {{}}
tune: {{}}
train: {{}}
evaluate: {{}}
tracking: {{}}
"""
# `dvc add data/raw` leaves a small file in data/ that git should keep. `?*`: DVC takes `/data/*`
# to mean the folder itself, and would not look into it.
GITIGNORE = """\
/data/?*
!/data/*.dvc
/reports/
/runs/
/tuning/
/models/
/evaluation/
/promotion.json
/mlflow.db*
/.mlflow.db*
/mlartifacts/
/pipeline.yaml
/pipeline-runs/
/.kamerton/
/voice.wav
*.partial-*
.env
"""
DVCIGNORE = """\
# DVC looks through everything else for stages, on every command.
.git
.venv
.kamerton
runs
pipeline-runs
mlartifacts
components
"""


def project_source() -> Path:
    """Where the project files are: in the installed package, or the root of a checkout."""
    package = Path(kamerton.__file__).parent
    for candidate in (package / "_project", package.parents[1]):
        if (candidate / "dvc.yaml").exists() and (candidate / "components").is_dir():
            return candidate
    raise PipelineError("the project files are not installed", hint="reinstall kamerton")


def _name(folder: Path) -> str:
    kept = [
        char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in folder.name
    ]
    return "".join(kept).strip("-_") or "voice"


def make_project(folder: Path, *, force: bool) -> Iterator[str]:
    """Copy the project files into ``folder`` and make it a DVC repository.

    Yields a line for each thing done.

    Raises:
        UsageError: project files exist there and ``force`` is not given.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder.", hint="name another folder")
    existing = [name for name in (*FILES, "components", "params.yaml") if (folder / name).exists()]
    if existing and not force:
        raise UsageError(
            f"{folder} holds {', '.join(existing)} already.", hint="give --force to replace them"
        )
    source = project_source()
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_text(folder / name, (source / name).read_text(encoding="utf-8"))
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        source / "components", folder / "components", dirs_exist_ok=True, ignore=ignored
    )
    write_text(folder / "params.yaml", PARAMS.format(name=_name(folder)))
    for name, text in ((".gitignore", GITIGNORE), (".dvcignore", DVCIGNORE)):
        if not (folder / name).exists():
            write_text(folder / name, text)
    (folder / "data/raw").mkdir(parents=True, exist_ok=True)
    yield f"project files in {folder}"
    yield _init_dvc(folder)
    yield "next: put recordings into data/raw, look through params.yaml, then `dvc repro`"


def _init_dvc(folder: Path) -> str:
    if (folder / ".dvc").is_dir():
        return "DVC repository was there"
    if shutil.which("git") and not _in_git(folder):
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    in_root = (folder / ".git").exists()
    arguments = [] if in_root else ["--subdir"] if _in_git(folder) else ["--no-scm"]
    command = [sys.executable, "-m", "dvc", "init", "--quiet", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No module named dvc" in done.stderr:
            raise ToolMissingError("dvc", extra="pipeline")
        raise PipelineError(f"dvc init failed: {done.stderr.strip()}", hint="see the message above")
    for key in ("core.analytics=false", "core.autostage=false"):
        subprocess.run(
            [sys.executable, "-m", "dvc", "config", *key.split("=")], cwd=folder, check=True
        )
    return "DVC repository made"


def _in_git(folder: Path) -> bool:
    if not shutil.which("git"):
        return False
    asked = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--is-inside-work-tree"],
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0
