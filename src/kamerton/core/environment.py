"""What a run was made with: interpreter, packages, revision of the code."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from kamerton import __version__

PACKAGES = (
    "torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "openai-whisper", "faster-whisper",
    "ctranslate2", "optuna", "mlflow", "dvc", "kfp", "pydantic", "pesq", "pystoi", "jiwer",
)  # fmt: skip

# DVC rewrites its lock on every run; it is a result, not a change of the code.
IGNORED_CHANGES = ("dvc.lock",)


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that are installed, without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def git_revision(folder: Path | None = None) -> dict[str, Any]:
    """Commit of ``folder`` and whether tracked or new files differ from it; nulls outside git."""
    folder = folder or Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal")
    if commit is None or status is None:
        return {"commit": None, "dirty": None}
    changes = [line for line in status.splitlines() if line[3:] not in IGNORED_CHANGES]
    return {"commit": commit.strip(), "dirty": bool(changes)}


def environment() -> dict[str, Any]:
    """Everything about the machine's software that can change a result."""
    return {
        "kamerton": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": package_versions(),
        "git": git_revision(),
    }
