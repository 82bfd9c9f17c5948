"""The reference of every parameter, generated from the schema."""

import json

from pydantic import BaseModel

from kamerton.config.loading import leaves
from kamerton.config.schema import Params
from kamerton.config.search_space import Dimension

_OPENING = """\
# Parameters

Made by `kamerton params docs`. A project's `params.yaml` gives what differs from these defaults.
Units stand in the names. `tune.search_space` maps the dotted name of a parameter to a range
(`{type: float, low: 1e-5, high: 1e-2, log: true}`) or to choices
(`{type: choice, choices: [256, 512]}`).
"""
_HEAD = "| key | type | default | effect |\n| --- | --- | --- | --- |\n"


def _default(value: object) -> str:
    if isinstance(value, dict):
        dimensions = {
            name: item.model_dump(exclude_none=True) if isinstance(item, Dimension) else item
            for name, item in value.items()
        }
        return f"{len(dimensions)} dimensions" if dimensions else "none"
    return f"`{json.dumps(value, ensure_ascii=False, default=_plain)}`"


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


def reference() -> str:
    """Markdown tables: key, type, default and effect, one table per section."""
    parts = [_OPENING]
    by_section: dict[str, list[str]] = {}
    for leaf in leaves():
        section, _, name = leaf.name.partition(".")
        kind = leaf.type.replace("|", "\\|")
        by_section.setdefault(section, []).append(
            f"| `{name}` | {kind} | {_default(leaf.default)} | {leaf.description} |"
        )
    for section, rows in by_section.items():
        annotation = Params.model_fields[section].annotation
        about = (annotation.__doc__ or "").strip().splitlines()[0] if annotation else ""
        parts.append(f"\n## {section}\n\n{about}\n\n{_HEAD}")
        parts.append("\n".join(rows) + "\n")
    return "".join(parts)
