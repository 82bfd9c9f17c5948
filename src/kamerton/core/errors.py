"""Errors that a user can act on, and the exit code of each.

PipelineError                1  failed
  UsageError                 2  the command was called wrongly
  ParamsError                3  params.yaml or an override is wrong
  InputMissingError          4  a file or folder does not exist
  InputEmptyError            4  it exists and holds nothing usable
  InputCorruptError          1  it exists and cannot be read
  ToolMissingError           5  a package or program is not installed
  GateNotMetError            6  a quality gate failed and --require was given
  StoppedError              75  stopped on request; can be resumed
"""

from pathlib import Path
from typing import ClassVar

PARTIAL_EXIT_CODE = 7  # done, with inputs left out and listed
INTERRUPTED_EXIT_CODE = 130


class PipelineError(Exception):
    """What happened, where, and the one command or edit that would fix it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Travel between processes; each class builds its message from other arguments."""
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[PipelineError], message: str, hint: str) -> PipelineError:
    error = kind.__new__(kind, message)
    PipelineError.__init__(error, message, hint=hint)
    return error


class UsageError(PipelineError):
    """The command line asks for something that cannot be done."""

    exit_code = 2


class ParamsError(PipelineError):
    """One or more parameters are wrong; the message lists all of them."""

    exit_code = 3


class InputMissingError(PipelineError):
    """An input does not exist; ``produced_by`` is a stage, or "you" for the user's own files."""

    exit_code = 4

    def __init__(self, path: Path | str, *, produced_by: str, hint: str | None = None) -> None:
        if produced_by == "you":
            message = f"{path} does not exist."
            default = f"put your files at {path}, or name another path"
        else:
            message = f"{path} does not exist; it is written by the '{produced_by}' stage."
            default = (
                f"run `kamerton {produced_by}`, or `dvc repro` to bring every stage up to date"
            )
        super().__init__(message, hint=hint or default)


class InputEmptyError(PipelineError):
    """An input exists but holds nothing usable."""

    exit_code = 4

    def __init__(self, path: Path | str, *, wanted: str, hint: str) -> None:
        super().__init__(f"{path} holds no {wanted}.", hint=hint)


class InputCorruptError(PipelineError):
    """An input exists but cannot be read."""

    exit_code = 1

    def __init__(self, path: Path | str, *, problem: str, hint: str) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)


class ToolMissingError(PipelineError):
    """A package or a program that this step needs is not installed."""

    exit_code = 5

    def __init__(self, tool: str, *, extra: str | None = None, hint: str | None = None) -> None:
        default = f"pip install 'kamerton[{extra}]'" if extra else f"install {tool}"
        super().__init__(f"{tool} is not installed.", hint=hint or default)


class GateNotMetError(PipelineError):
    """The candidate failed a gate and the caller required it to pass."""

    exit_code = 6


class StoppedError(PipelineError):
    """The work stopped on request at a point from which it can be resumed."""

    exit_code = 75

    def __init__(self, message: str, *, hint: str = "run the same command again") -> None:
        super().__init__(message, hint=hint)
