"""From params.yaml, overrides and JSON sections to one validated set of parameters."""

import difflib
import json
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kamerton.config.aliases import translate
from kamerton.config.schema import SECTIONS, Params, merge
from kamerton.config.search_space import search_space_faults
from kamerton.config.yaml_source import KeyPath, YamlSource, parse_scalar, read_yaml
from kamerton.core.errors import ParamsError, UsageError

DEFAULT_FILE = Path("params.yaml")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One parameter: its dotted name, its type as text, its default and what it does."""

    name: str
    type: str
    default: Any
    description: str


def _submodel(annotation: Any) -> type[BaseModel] | None:
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def _type_text(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        parts = [_type_text(part) for part in typing.get_args(annotation)]
        return " | ".join("null" if part == "NoneType" else part for part in parts)
    if origin is typing.Annotated:
        return _type_text(typing.get_args(annotation)[0])
    if origin is tuple:
        return f"list of {_type_text(typing.get_args(annotation)[0])}"
    if origin is dict:
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))


def leaves(model: type[BaseModel] = Params, prefix: str = "") -> list[Leaf]:
    """Every parameter of ``model`` in the order of the schema."""
    found = []
    for name, info in model.model_fields.items():
        dotted = f"{prefix}{name}"
        if sub := _submodel(info.annotation):
            found += leaves(sub, f"{dotted}.")
        else:
            default = info.get_default(call_default_factory=True)
            found.append(Leaf(dotted, _type_text(info.annotation), default, info.description or ""))
    return found


def _known_keys(path: Sequence[str | int]) -> list[str]:
    """The keys allowed at ``path`` of the schema; none where the schema is free."""
    model: type[BaseModel] | None = Params
    for key in path:
        info = model.model_fields.get(str(key)) if model else None
        model = _submodel(info.annotation) if info else None
    return list(model.model_fields) if model else []


def nearest(name: str) -> str | None:
    """The dotted parameter whose name is most like ``name``, if any is alike."""
    names = [leaf.name for leaf in leaves()] + list(SECTIONS)
    if match := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return match[0]
    last = name.rpartition(".")[2]
    by_last = {leaf.name.rpartition(".")[2]: leaf.name for leaf in leaves()}
    match = difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)
    return by_last[match[0]] if match else None


def _unknown(path: KeyPath) -> str:
    dotted = ".".join(map(str, path))
    siblings = difflib.get_close_matches(str(path[-1]), _known_keys(path[:-1]), n=1, cutoff=0.5)
    guess = ".".join(map(str, (*path[:-1], siblings[0]))) if siblings else nearest(dotted)
    return f"unknown key '{dotted}'" + (f"; did you mean '{guess}'?" if guess else "")


def _explain(error: Any, sources: Sequence[YamlSource]) -> str:
    path: KeyPath = tuple(error["loc"])
    owner = next((source for source in sources if _has(source.values, path)), sources[0])
    place = owner.place(path)
    if error["type"] == "extra_forbidden":
        return f"{place}: {_unknown(path)}"
    message = error["msg"].removeprefix("Value error, ")
    dotted = ".".join(map(str, path))
    found = error["input"]
    # A mapping is too long to repeat, and a URL may hold a password.
    is_url = isinstance(found, str) and "://" in found
    if is_url:  # --set names it where it stands
        place = place.replace(found, "...")
    hidden = is_url or isinstance(found, dict | BaseModel)
    given = "" if hidden else f" (given: {found!r})"
    return f"{place}: {dotted}: {message}{given}" if dotted else f"{place}: {message}"


def _has(values: Any, path: KeyPath) -> bool:
    """Whether a source gives a value at ``path`` (or as far down it as values are mappings)."""
    for depth, key in enumerate(path):
        if not isinstance(values, dict):
            return depth > 0
        if key not in values:
            return False
        values = values[key]
    return True


def validate(values: dict[str, Any], sources: Sequence[YamlSource]) -> Params:
    """Validate merged ``values``; ``sources`` (last wins, first listed) say where each came from.

    Raises:
        ParamsError: lists every fault with its file and line.
    """
    try:
        params = Params.model_validate(values)
    except ValidationError as invalid:
        faults = list(dict.fromkeys(_explain(error, sources) for error in invalid.errors()))
        raise _wrong(faults) from invalid
    if faults := _search_space_faults(params, sources):
        raise _wrong(faults)
    return params


def _wrong(faults: Sequence[str]) -> ParamsError:
    count = "1 parameter is wrong" if len(faults) == 1 else f"{len(faults)} parameters are wrong"
    return ParamsError(
        f"{count}:\n  " + "\n  ".join(faults),
        hint="`kamerton params docs` lists every key with its unit and default",
    )


def _search_space_faults(params: Params, sources: Sequence[YamlSource]) -> list[str]:
    """Faults of a search space that somebody wrote; the tuner checks the default one itself.

    The default space may not fit, say, a voice of low sample rate, which concerns nobody who does
    not search.
    """
    space: KeyPath = ("tune", "search_space")
    owner = next((source for source in sources if _has(source.values, space)), None)
    if owner is None:
        return []
    return [
        f"{owner.place((*space, name))}: tune.search_space.{name}: {fault}"
        for name, fault in search_space_faults(params).items()
    ]


def parse_override(text: str) -> dict[str, Any]:
    """``"train.batch_size=16"`` as a nested mapping; the value is YAML."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(
            f"--set {text}: not of the form section.key=value",
            hint="e.g. --set train.batch_size=16",
        )
    try:
        nested: Any = parse_scalar(value)
    except Exception as error:
        raise UsageError(f"--set {text}: the value is not YAML", hint="quote it") from error
    for key in reversed(keys):
        nested = {key: nested}
    return typing.cast("dict[str, Any]", nested)


def parse_section(section: str, text: str) -> dict[str, Any]:
    """One section given as a JSON object (what a pipeline passes)."""
    if section not in SECTIONS:
        raise ParamsError(
            f"--params-json: {_unknown((section,))}", hint=f"sections are {', '.join(SECTIONS)}"
        )
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ParamsError(
            f"--params-json {section}: not JSON: {error}", hint="pass one JSON object"
        ) from error
    if not isinstance(values, dict):
        raise ParamsError(
            f"--params-json {section}: not a JSON object", hint="e.g. '{\"max_seconds\": 12}'"
        )
    return {section: values}


def load_params(
    file: Path | None = None,
    *,
    overrides: Iterable[str] = (),
    sections: Iterable[tuple[str, str]] = (),
) -> Params:
    """Parameters from a file or from JSON sections, with overrides on top.

    Without ``file``, params.yaml of the working directory is read where there is one, unless
    ``sections`` are given: a pipeline passes all that it wants to differ from the defaults.

    Raises:
        ParamsError, UsageError, InputMissingError: all faults of a kind at once.
    """
    section_list = list(sections)
    sources: list[YamlSource] = []
    if file is not None or (not section_list and DEFAULT_FILE.exists()):
        sources.append(translate(read_yaml(file or DEFAULT_FILE)))
    sources += [
        YamlSource(f"--params-json {name}", parse_section(name, text))
        for name, text in section_list
    ]
    by_hand = list(overrides)
    sources += [YamlSource(f"--set {text}", parse_override(text)) for text in by_hand]
    values: dict[str, Any] = {}
    for source in sources:
        values = merge(values, source.values)
    params = validate(values, sources[::-1] or [YamlSource("defaults", {})])
    return params.marked_as_given(text.partition("=")[0].strip() for text in by_hand)
