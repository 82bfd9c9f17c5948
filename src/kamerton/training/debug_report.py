"""What a run looks like from inside, every thousand steps: for whoever asks why it does not learn.

A report is two files of equal content in the run directory, ``debug/step_<step>.json`` and ``.md``.
Making one draws no random number and changes nothing that trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from kamerton.core.files import write_json, write_text
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import RunDirectory
from kamerton.tracking.hooks import Action, EvalFacts, StepFacts
from kamerton.tracking.metrics_file import Record, json_safe, last_events
from kamerton.tracking.trouble import Trouble
from kamerton.training.data import TrainingData
from kamerton.training.evaluation import measuring, teacher_forced
from kamerton.training.event_lines import words
from kamerton.training.hooks import LoopFacts
from kamerton.training.speed import most_resident_bytes

FOLDER: Final = "debug"
EVENTS: Final = 20
_MIB: Final = 1 << 20


class DebugReporter:
    """Writes the reports of one run, as a hook of it."""

    name: Final = "debug_report"

    def __init__(
        self, run: RunDirectory, model: Tacotron2, data: TrainingData, *, interval_steps: int
    ) -> None:
        self._run, self._model, self._data = run, model, data
        self._interval = interval_steps
        self.trouble = Trouble(f"a debug report of {run.path}", "it is left out")

    def on_step(self, facts: StepFacts) -> None:
        """Write the report of a step whose turn it is; a disk that does not take it is told of."""
        if facts.step % self._interval or not isinstance(facts, LoopFacts):
            return
        report = self.report(facts)
        stem = self._run.path / FOLDER / f"step_{facts.step:08d}"
        try:
            write_json(stem.with_suffix(".json"), report)
            write_text(stem.with_suffix(".md"), as_markdown(report))
        except OSError as error:
            self.trouble.begins(error)

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """Write nothing: reports come by steps."""
        del facts
        return ()

    def on_epoch(self, facts: StepFacts) -> None:
        """Write nothing: reports come by steps."""

    def on_exception(self, error: Exception) -> None:
        """Write nothing: the run's status has the error."""

    def memory(self) -> dict[str, Any]:
        """Nothing: a report is a function of its step."""
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered."""

    def report(self, facts: LoopFacts) -> dict[str, Any]:
        """Everything about the run as it stands after a step, in values that JSON holds."""
        result, controls, state = facts.result, facts.controls, facts.state
        names = {field: getattr(controls, field) for field in controls.owners}
        report = {
            "step": state.step,
            "of": facts.total,
            "state": state.to_dict() | {"clip": {"norms_kept": len(state.clip.norms)}},
            "loss": float(result.losses.total),
            "losses": {
                name: {"raw": float(raw), "weighted": _number(result.losses.weighted.get(name))}
                for name, raw in result.losses.raw.items()
            },
            "applied": result.applied,
            "controls": {
                name: {"value": value, "owner": controls.owners[name]}
                for name, value in names.items()
            },
            "grad_norm": result.grad_norm,
            "grad_norms": gradient_norms(self._model, result.grad_norm),
            "parameters": parameter_statistics(self._model),
            "activations": self._activations(),
            "attention_figure": _newest_figure(self._run, state.step),
            "memory": _memory(),
            "events": [_event(record) for record in last_events(self._run.metrics_file, EVENTS)],
        }
        return {name: json_safe(value) for name, value in report.items()}

    def _activations(self) -> dict[str, dict[str, float]]:
        """Statistics of what every module gives for the first of the fixed sentences."""
        batch = self._data.tensors(self._data.spoken[:1])
        with torch.no_grad(), measuring(self._model), _watched(self._model) as seen:
            teacher_forced(self._model, batch, self._model.normalise(batch.frames))
        return _statistics(seen, ("mean", "deviation", "largest", "zeros"))


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect statistics of every module's (first) output; a module called again is the last."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                values = tensor.detach().float()
                zeros = (values == 0).float().mean()
                deviation = values.std(correction=0)
                seen[name] = torch.stack([values.mean(), deviation, values.abs().max(), zeros])

        return hook

    handles = [
        module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def gradient_norms(model: nn.Module, before_clipping: float) -> dict[str, float]:
    """The gradient's norm in each part of the model, in the order of the model.

    Gradients have been scaled down to the clipping threshold by now; that is undone, so that the
    squares add up to that of ``before_clipping``.
    """
    squares: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = ".".join(name.split(".")[:2])
            square = parameter.grad.detach().float().square().sum()
            squares[part] = squares[part] + square if part in squares else square
    if not squares:
        return {}
    norms = torch.stack(list(squares.values())).sqrt()
    total = float(norms.norm())
    sound = math.isfinite(total) and math.isfinite(before_clipping) and total > 0
    scale = before_clipping / total if sound else 1.0
    return dict(zip(squares, (norms * scale).tolist(), strict=True))


def parameter_statistics(model: nn.Module) -> dict[str, dict[str, float]]:
    """Norm, mean, deviation and largest magnitude of every tensor of weights."""
    rows = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().float()
        rows[name] = torch.stack(
            [values.norm(), values.mean(), values.std(correction=0), values.abs().max()]
        )
    return _statistics(rows, ("norm", "mean", "deviation", "largest"))


def _statistics(rows: Mapping[str, Tensor], columns: Sequence[str]) -> dict[str, dict[str, float]]:
    if not rows:
        return {}
    table = torch.stack(list(rows.values())).tolist()  # one transfer from a GPU for all
    return {
        name: dict(zip(columns, values, strict=True))
        for name, values in zip(rows, table, strict=True)
    }


def _newest_figure(run: RunDirectory, step: int) -> str | None:
    """The newest picture of attention, relative to the run directory."""
    known = sorted(run.figures.glob("attention-*.png"))
    found = [path for path in known if path.stem <= f"attention-{step:08d}"]
    return found[-1].relative_to(run.path).as_posix() if found else None


def _memory() -> dict[str, float]:
    memory = {"most_resident_mb": most_resident_bytes() / _MIB}
    if torch.cuda.is_available():
        memory["device_mb"] = torch.cuda.memory_allocated() / _MIB
        memory["most_device_mb"] = torch.cuda.max_memory_allocated() / _MIB
        memory["reserved_device_mb"] = torch.cuda.memory_reserved() / _MIB
    return memory


def _event(record: Record) -> dict[str, Any]:
    return {"step": record.step, "event": record.name, **record.fields}


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as people read it."""
    lines = [
        f"# Step {report['step']} of {report['of']}",
        "",
        f"Loss {_short(report['loss'])}, gradient norm {_short(report['grad_norm'])}"
        f"{'' if report['applied'] else ' (the step was skipped)'}.",
    ]
    if report["attention_figure"]:
        lines += ["", f"![attention](../{report['attention_figure']})"]
    for title, column, rows in (
        ("Losses", "part", report["losses"]),
        ("Controls", "parameter", report["controls"]),
        ("Gradient norms before clipping", "part",
         {name: {"norm": value} for name, value in report["grad_norms"].items()}),
        ("Activations of one validation sentence, teacher-forced", "module", report["activations"]),
        ("Weights", "tensor", report["parameters"]),
        ("Memory", "of", {name: {"MiB": value} for name, value in report["memory"].items()}),
    ):  # fmt: skip
        lines += ["", f"## {title}", "", *_table(column, rows)]
    lines += ["", f"## The last {EVENTS} events", ""]
    lines += [f"- {_event_line(event)}" for event in report["events"]] or ["None."]
    return "\n".join(lines) + "\n"


def _table(column: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["None."]
    heads = list(next(iter(rows.values())))
    return [
        f"| {column} | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
        *(
            f"| {name} | {' | '.join(_short(row[head]) for head in heads)} |"
            for name, row in rows.items()
        ),
    ]


def _event_line(event: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in event.items() if name not in ("step", "event")}
    return f"step {event['step']}: {event['event'].replace('_', ' ')}: {words(fields)}"


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
