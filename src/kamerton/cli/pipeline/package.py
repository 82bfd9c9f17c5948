"""Making the pipeline package: `pipeline.py` of the project is run, never imported."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kamerton.core.environment import git_revision
from kamerton.core.errors import InputMissingError, PipelineError, ToolMissingError

SCRIPT = Path("pipeline.py")


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What `pipeline.py compile` is asked for; `None` and empty leave its own defaults."""

    params: Path | None = None
    overrides: tuple[str, ...] = ()
    profile: str | None = None
    mlflow_uri: str | None = None
    cache: bool = False

    @property
    def given(self) -> bool:
        """Whether anything differs from the defaults."""
        return self != CompileOptions()

    def arguments(self) -> list[str]:
        """As command-line arguments."""
        arguments = [text for override in self.overrides for text in ("--set", override)]
        for option, value in (
            ("--params", self.params),
            ("--profile", self.profile),
            ("--mlflow-uri", self.mlflow_uri),
        ):
            if value is not None:
                arguments += [option, str(value)]
        return arguments + (["--cache"] if self.cache else [])


def compile_package(output: Path, options: CompileOptions, extra: Sequence[str] = ()) -> str:
    """Compile the project's pipeline to ``output`` and return what the script printed.

    It runs in a process of its own, since kfp keeps global state while it compiles, and since the
    project's `pipeline.py` and `components/` belong to the user.

    Raises:
        InputMissingError: there is no pipeline.py here.
        ToolMissingError: kfp is not installed.
        PipelineError: it does not compile; the script's own words are in the message.
    """
    if not SCRIPT.exists():
        raise InputMissingError(
            SCRIPT, produced_by="you", hint="change to the project's folder, or `kamerton init DIR`"
        )
    command = [
        sys.executable,
        str(SCRIPT),
        "compile",
        "-o",
        str(output),
        *options.arguments(),
        *extra,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    if "No module named 'kfp" in done.stderr:
        raise ToolMissingError("kfp", extra="kubeflow")
    raise CompileError(done.stderr.strip(), done.returncode)


class CompileError(PipelineError):
    """`pipeline.py` failed; it passes on the exit code of the script."""

    def __init__(self, message: str, exit_code: int) -> None:
        lines = message.splitlines() or ["pipeline.py failed without a message"]
        tail = "\n".join(lines[-20:]).removeprefix("error: ")
        super().__init__(tail, hint="correct it, then `kamerton pipeline compile`")
        self.exit_code = exit_code  # type: ignore[misc]  # of this failure, not of the class


def version_name(package: Path) -> str:
    """A name that stands for the code's revision and the package's content."""
    content = hashlib.sha256(package.read_bytes()).hexdigest()[:8]
    revision = git_revision()
    commit = str(revision["commit"] or "no-git")[:12]
    return f"{commit}{'-dirty' if revision['dirty'] else ''}-{content}"
