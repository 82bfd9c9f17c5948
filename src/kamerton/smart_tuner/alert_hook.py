"""AlertHook: turns what a training run goes through into alerts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from kamerton.config.tuner_sections import AlertParams
from kamerton.core.errors import StoppedError
from kamerton.smart_tuner.alert_manager import AlertManager, failure_text
from kamerton.smart_tuner.channels.message import Newest
from kamerton.tracking import names
from kamerton.tracking.hooks import Action, EvalFacts, Measure, StepFacts

ALIGNED_FROM: Final = 0.8  # free-running diagonality; see metrics.alignment
_QUARTERS: Final = ((1, "a quarter"), (2, "half"), (3, "three quarters"))
# What of an evaluation a report shows.
_REPORTED: Final = {
    "validation mel loss": names.VAL_MEL_LOSS,
    "diagonality": names.ATTENTION_SCORE,
    "coverage": names.ATTENTION_COVERAGE,
    "stop frame F1": names.GATE_F1,
}
COUNTS: Final = f"{names.SYSTEM}alerts/"  # differ from run to run, so no comparison shows them


class AlertHook:
    """Watches one run for an ``AlertManager``; does no work but to put words into its queue.

    What was told is part of every checkpoint, so that a run that goes on does not repeat it.
    """

    name = "alerts"

    def __init__(
        self, manager: AlertManager, run: Path, *, report_interval_steps: int,
        sample_interval_steps: int, phase_names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Watch the run in the directory ``run``.

        Args:
            manager: What sends; whoever made it closes it.
            run: Its figures and samples are sent with reports.
            report_interval_steps: Steps between reports.
            sample_interval_steps: Steps between samples of speech.
            phase_names: What the phases are called, from the first on.
        """
        self._manager = manager
        self._attention = Newest(run / "figures", "attention-*.png")
        self._sample = Newest(run / "samples", "*.wav")
        self._every, self._sample_every = report_interval_steps, sample_interval_steps
        self._phase_names = tuple(phase_names)
        self._step: StepFacts | None = None
        self._eval: EvalFacts | None = None
        self._counted: dict[str, float] = {}
        self._told: set[str] = set()
        self._phase: int | None = None
        self._error: Exception | None = None

    @classmethod
    def of(
        cls, manager: AlertManager, run: Path, params: AlertParams,
        phase_names: Sequence[str] = (),
    ) -> Self:  # fmt: skip
        """With the intervals of the parameters."""
        return cls(
            manager, run, report_interval_steps=params.report_interval_steps,
            sample_interval_steps=params.sample_interval_steps, phase_names=phase_names,
        )  # fmt: skip

    def started(self, step: int, total: int, fields: Mapping[str, Any] | None = None) -> None:
        """The run begins, or goes on from ``step``."""
        words = "training begins" if step == 0 else "training goes on"
        self._manager.emit("started", words, fields, step=step, total=total)

    def restarted(
        self, step: int, total: int, reason: str, fields: Mapping[str, Any] | None = None
    ) -> None:
        """The run goes on with other values, or after a failure."""
        self._manager.emit("restarted", reason, fields, step=step, total=total)

    def done(self, step: int, total: int, fields: Mapping[str, Any] | None = None) -> None:
        """The run is finished."""
        early = "" if step >= total else " before the end of its plan"
        self._manager.emit("done", f"training is finished{early}", fields, step=step, total=total)

    def on_alert(self, kind: str, text: str, fields: Mapping[str, Any]) -> None:
        """Something that the trainer or another hook wants told (``Job.on_alert``)."""
        step, total = self._where()
        self._manager.emit(kind, text, fields, step=step, total=total)

    def on_step(self, facts: StepFacts) -> None:
        """Tell of phases, milestones and numbers that are not finite; report at intervals."""
        self._step = facts
        step, total = facts.step, facts.total
        self._note_phase(facts.phase, step, total)
        for quarter, words in _QUARTERS:
            if step == -(-quarter * total // 4):  # the first step that is not below it
                self._tell_once(f"plan:{quarter}", f"{words} of the plan is done", step, total)
        if not math.isfinite(facts.loss):
            text = "the loss is not finite; the step was skipped"
            self._manager.emit("nan", text, {"loss": facts.loss}, step=step, total=total)
        if step % self._every == 0:
            files = (self._attention,)
            fields = self._report()
            self._manager.emit("report", "training", fields, step=step, total=total, files=files)
        if step % self._sample_every == 0:
            self._manager.emit(
                "sample", "the newest sample of speech", step=step, total=total,
                files=(self._sample,),
            )  # fmt: skip

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """Tell of a new best, of phases and of attention that is aligned; hand over the counts."""
        self._eval = facts
        step, total = facts.step, facts.total
        self._note_phase(facts.phase, step, total)
        if facts.best_step == step:
            fields = {"quality": facts.best_quality, **self._evaluated()}
            self._manager.emit("best", "a new best", fields, step=step, total=total)
        diagonality = facts.values.get(names.ATTENTION_SCORE, math.nan)
        if diagonality >= ALIGNED_FROM:
            text = f"attention is aligned for the first time (diagonality {diagonality:.2f})"
            self._tell_once("aligned", text, step, total)
        return self._counts()

    def on_epoch(self, facts: StepFacts) -> None:
        """Tell nothing: reports count steps."""

    def on_exception(self, error: Exception) -> None:
        """Tell how the run ended; an error that whoever called the trainer tells again is known."""
        if error is self._error:
            return
        self._error = error
        step, total = self._where()
        if isinstance(error, StoppedError):
            self._manager.emit("stop", "stopped on request; the same command goes on",
                               step=step, total=total)  # fmt: skip
        else:
            self._manager.emit("failed", failure_text(error), step=step, total=total)

    def memory(self) -> dict[str, Any]:
        """What was told, and the phase."""
        return {"told": sorted(self._told), "phase": self._phase}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Take up what ``memory`` gave."""
        self._told = set(memory.get("told", ()))
        self._phase = memory.get("phase")
        self._step, self._eval, self._counted = None, None, {}

    def _where(self) -> tuple[int | None, int | None]:
        """Where the run stands: by the later of its last step and its last evaluation."""
        known = [facts for facts in (self._step, self._eval) if facts is not None]
        last = max(known, key=lambda facts: facts.step, default=None)
        return (last.step, last.total) if last else (None, None)

    def _note_phase(self, phase: int, step: int, total: int) -> None:
        before, self._phase = self._phase, phase
        if before is None or before == phase:
            return
        named = self._phase_names[phase : phase + 1]
        words = f"phase {phase + 1} begins" + (f": {named[0]}" if named else "")
        self._tell_once(f"phase:{phase}", words, step, total, kind="phase")

    def _tell_once(
        self, key: str, text: str, step: int, total: int, kind: str = "milestone"
    ) -> None:
        if key not in self._told:
            self._told.add(key)
            self._manager.emit(kind, text, self._evaluated(), step=step, total=total, key=key)

    def _evaluated(self) -> dict[str, float]:
        values = self._eval.values if self._eval else {}
        return {words: values[name] for words, name in _REPORTED.items() if name in values}

    def _report(self) -> dict[str, Any]:
        """The last step's figures, and those of the last evaluation."""
        facts, fields = self._step, dict[str, Any]()
        if facts is not None:
            fields = {
                "loss": facts.loss, "gradient norm": facts.grad_norm,
                "learning rate": facts.learning_rate, "epoch": facts.epoch,
                "phase": facts.phase + 1, "batch": facts.batch_size,
            }  # fmt: skip
        if self._eval is not None:
            best = {"best step": self._eval.best_step, "best quality": self._eval.best_quality}
            fields |= {"evaluated at step": self._eval.step, **self._evaluated(), **best}
        return fields

    def _counts(self) -> list[Action]:
        """Counters that changed, where alerts leave this process at all."""
        if not self._manager.remote:
            return []
        counts = self._manager.counts()
        values = {
            f"{COUNTS}sent": float(counts.sent), f"{COUNTS}failed": float(counts.failed),
            f"{COUNTS}dropped": float(counts.dropped),
            f"{COUNTS}repeated": float(counts.repeated),
        }  # fmt: skip
        changed = values != self._counted
        self._counted = values
        return [Measure(values)] if changed else []
