"""YAML with the line of every key, so that an error can name the place."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kamerton.core.errors import InputMissingError, ParamsError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads numbers as YAML 1.2 does: 1e-5 is a number, not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True)
class YamlSource:
    """A parsed file: its plain values and the line of each key and item."""

    name: str
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """``file:line`` of the nearest key at or above ``path``."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(path[:length]):
                return f"{self.name}:{line}"
        return self.name


def parse_scalar(text: str) -> Any:
    """The value that ``text`` has in YAML, for overrides from the command line."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], twice: list[str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*path, str(key.value))
            if at in lines:
                twice.append(f"line {key.start_mark.line + 1}: '{key.value}' is given twice")
            lines[at] = key.start_mark.line + 1
            _walk(value, at, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines, twice)


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML mapping.

    Raises:
        InputMissingError: there is no such file.
        ParamsError: it is not UTF-8, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputMissingError(
            path,
            produced_by="you",
            hint="run `kamerton init .` to make a project here, or give --params",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"{path} cannot be read: {error}", hint="make it a UTF-8 text file"
        ) from error
    return parse_yaml(text, name=str(path))


def parse_yaml(text: str, *, name: str) -> YamlSource:
    """The same for text that is already in memory; ``name`` stands in messages."""
    try:
        node = yaml.compose(text, _Loader)
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        lines: dict[KeyPath, int] = {}
        twice: list[str] = []
        if node is not None:
            _walk(node, (), lines, twice)  # too deep for ever where an anchor holds itself
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise ParamsError(
            f"{place}: not valid YAML: {getattr(error, 'problem', error)}", hint="correct that line"
        ) from error
    except RecursionError as error:
        raise ParamsError(
            f"{name}: nested too deeply", hint="params.yaml has three levels"
        ) from error
    if values is None or node is None:
        return YamlSource(name, {})
    if not isinstance(values, dict):
        raise ParamsError(
            f"{name}: not a mapping of sections", hint="start with `audio:` or another section"
        )
    if twice:
        raise ParamsError(f"{name}: " + "; ".join(twice), hint="keep one of them")
    return YamlSource(name, values, lines)
