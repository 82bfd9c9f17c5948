"""Events of a run in words: what happened, why, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kamerton.tracking import Record
from kamerton.tracking.metrics_file import EVALUATING
from kamerton.training.made_with import MADE_WITH
from kamerton.training.progress_note import PHASE_NAMES

# Of every evaluation and every start: not what one looks for when something went wrong. They also
# tell how often a run was interrupted, which equal runs differ in.
ORDINARY: Final = frozenset(
    {"best", "control", "decision", "effective", "ended", EVALUATING, MADE_WITH, "resumed"}
)

_PHASE_REASONS: Final = {
    "goal": "the goal before it was met",
    "share": "the share of the budget before it was used up",
    "latest": "the goal before it was not met in time",
}
_CAUSES: Final = {
    "non_finite": "steps that are not finite",
    "explosion": "gradients exploded",
    "divergence": "evaluations became far worse",
    "plateau": "no better evaluation for long",
    "collapse": "attention collapsed",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One line; ``step`` is None for what has no step."""

    step: int | None
    what: str
    why: str = ""
    action: str = ""


def happenings(records: Iterable[Record]) -> list[Happening]:
    """The extraordinary events among some records, in order; steps skipped in a row are one."""
    found: list[Happening] = []
    skipped: list[int] = []
    place = 0  # where in ``found`` those are
    for record in records:
        if record.kind != "event" or record.name in ORDINARY:
            continue
        in_a_row = bool(skipped) and record.step == skipped[-1] + 1
        if record.name == "non_finite_step" and record.step is not None:
            skipped = [*skipped, record.step] if in_a_row else [record.step]
            place = place if in_a_row else len(found)
            found[place : place + 1] = [_skipped(skipped, record.fields)]
        else:
            found.append(_DESCRIBED.get(record.name, _unknown)(record))
    return found


def _skipped(steps: list[int], fields: Mapping[str, Any]) -> Happening:
    several = len(steps) > 1
    return Happening(
        steps[0],
        f"{len(steps)} steps in a row not finite" if several else "a step was not finite",
        f"{'at last ' if several else ''}loss {fields.get('loss')}, "
        f"gradient norm {fields.get('grad_norm')}",
        "skipped",
    )


def _phase(record: Record) -> Happening:
    index = int(record.fields["phase"])
    return Happening(
        record.step, f"phase {index + 1}, {PHASE_NAMES[index]}",
        _PHASE_REASONS.get(str(record.fields["reason"]), ""),
    )  # fmt: skip


def _recovery(record: Record) -> Happening:
    cause = str(record.fields["cause"])
    values = {**record.fields.get("values", {})}
    return Happening(
        record.step, f"recovery: {_CAUSES.get(cause, cause)}", words(values),
        str(record.fields["action"]),
    )  # fmt: skip


def _recovery_effect(record: Record) -> Happening:
    fields = dict(record.fields)
    cause, verdict = str(fields.pop("cause")), str(fields.pop("verdict")).replace("_", " ")
    undone = "undone" if fields.pop("reverted") else ""
    before_and_after: dict[str, Any] = {
        name: fields[name]
        for name in ("quality_before", "quality_after", "loss_before", "loss_after")
        if name in fields
    }
    what = f"recovery from {_CAUSES.get(cause, cause)}: {verdict}"
    return Happening(record.step, what, words(before_and_after), undone)


def _intervention(record: Record) -> Happening:
    fields = record.fields
    return Happening(
        record.step, f"quality: {str(fields['issue']).replace('_', ' ')}",
        f"{fields['measure']}: {_word(fields['measured'])}",
        f"{str(fields['parameter']).replace('_', ' ')} from {_word(fields['factor_before'])} to "
        f"{_word(fields['factor'])} times its value: {fields['why']}",
    )  # fmt: skip


def _intervention_effect(record: Record) -> Happening:
    fields = record.fields
    before, after = _word(fields["measured_before"]), _word(fields["measured"])
    what = str(fields["parameter"]).replace("_", " ")
    return Happening(
        record.step, f"quality: {str(fields['issue']).replace('_', ' ')}, checked",
        f"{fields['reason']}: {before} before, {after} now", f"{what}: {fields['outcome']}",
    )  # fmt: skip


def _quality_issues(record: Record) -> Happening:
    found = words(record.fields["issues"]) or "none is left"
    return Happening(record.step, "faults found", f"severity of each: {found}")


def _stop(record: Record) -> Happening:
    return Happening(
        record.step, f"stop: {str(record.fields.get('cause', '')).replace('_', ' ')}",
        str(record.fields.get("reason", "")), "the best model is kept",
    )  # fmt: skip


def _report(record: Record) -> Happening:
    return Happening(record.step, "report", str(record.fields.get("text", "")))


def _warm_start(record: Record) -> Happening:
    fields = record.fields
    counts = {name: len(fields.get(name, ())) for name in ("taken", "fresh", "left", "new_rows")}
    return Happening(
        record.step, "warm start", f"weights of {str(fields.get('sha256', ''))[:12]}",
        words(counts),
    )  # fmt: skip


def _tracking_trouble(record: Record) -> Happening:
    place = record.fields.get("place")
    return Happening(
        record.step, f"{place} failed", str(record.fields.get("reason", "")), "tried again"
    )


def _tracking_recovered(record: Record) -> Happening:
    return Happening(record.step, f"{record.fields.get('place')} works again")


def _checkpoint_failed(record: Record) -> Happening:
    return Happening(
        record.step, "a checkpoint could not be written", str(record.fields.get("reason", "")),
        "kept in memory, tried again",
    )  # fmt: skip


def _unknown(record: Record) -> Happening:
    return Happening(record.step, record.name.replace("_", " "), words(record.fields))


_DESCRIBED: Final[Mapping[str, Callable[[Record], Happening]]] = {
    "phase": _phase,
    "recovery": _recovery,
    "recovery_effect": _recovery_effect,
    "intervention": _intervention,
    "intervention_effect": _intervention_effect,
    "quality_issues": _quality_issues,
    "report": _report,
    "stop": _stop,
    "warm_start": _warm_start,
    "tracking_trouble": _tracking_trouble,
    "tracking_recovered": _tracking_recovered,
    "checkpoint_failed": _checkpoint_failed,
}


def words(fields: Mapping[str, Any]) -> str:
    """Nested fields as words: ``loss 0.5, owner phase``."""
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in fields.items())


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({words(value)})"
    if isinstance(value, list | tuple):
        return " ".join(map(_word, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
