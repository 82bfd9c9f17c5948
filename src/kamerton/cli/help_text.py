"""Help that fills the terminal: a docstring's lines end where those of the source do."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Command = TypeVar("_Command", bound=Callable[..., Any])


def flowing(command: _Command) -> _Command:
    """The command with the lines of each paragraph of its docstring joined."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    command.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return command
