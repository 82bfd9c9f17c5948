import inspect
import pickle
import re
from pathlib import Path

import pytest

from kamerton.core import errors


def _classes():
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]


def test_the_tree_in_the_docstring_is_true():
    documented = dict(re.findall(r"^\s*(\w+Error)\s+(\d+)", errors.__doc__, re.MULTILINE))
    for name, code in documented.items():
        assert getattr(errors, name).exit_code == int(code), name
    assert set(documented) == {c.__name__ for c in _classes()}


def test_a_message_cannot_be_made_without_a_fix():
    with pytest.raises(TypeError):
        errors.PipelineError("something")
    for made in (
        errors.InputMissingError(Path("x"), produced_by="train"),
        errors.InputMissingError(Path("x"), produced_by="you"),
        errors.ToolMissingError("torch", extra="train"),
        errors.ToolMissingError("ffmpeg"),
        errors.StoppedError("stopped at step 3"),
    ):
        assert made.hint


def test_messages_name_the_thing():
    error = errors.InputMissingError(Path("data/clips"), produced_by="segment")
    assert "data/clips" in error.message
    assert "segment" in error.message
    assert "kamerton[train]" in errors.ToolMissingError("torch", extra="train").hint


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("a b.", hint="c"),
        errors.InputMissingError("x", produced_by="you"),
        errors.InputMissingError("x", produced_by="segment"),
        errors.InputCorruptError("x", problem="is odd", hint="c"),
        errors.ToolMissingError("onnxruntime", hint="c"),
        errors.StoppedError("later"),
    ],
)
def test_errors_survive_the_way_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.message, again.hint) == (str(error), error.message, error.hint)
