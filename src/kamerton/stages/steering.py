"""What watches and steers a training run: the tuner's controllers, attached to the trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kamerton.config.tuner_sections import AlertParams
from kamerton.smart_tuner.alert_hook import AlertHook
from kamerton.smart_tuner.alert_manager import AlertManager
from kamerton.smart_tuner.batch_size import BatchSizeAdapter
from kamerton.smart_tuner.early_stop import EarlyStopController, known_drops
from kamerton.smart_tuner.gradient_stability import GradientStabilityMonitor
from kamerton.smart_tuner.history import HISTORY_FILE
from kamerton.smart_tuner.quality_controller import QualityController
from kamerton.smart_tuner.quality_forecast import QualityForecast
from kamerton.tracking import RunDirectory, names
from kamerton.tracking.hooks import Hook

if TYPE_CHECKING:
    from kamerton.training.session import Session


@dataclass(frozen=True, slots=True)
class Steering:
    """The hooks of one run, and whom it tells.

    Attributes:
        hooks: In the order they are asked.
        alerts: Tells people.
    """

    hooks: Sequence[Hook]
    alerts: AlertHook

    def begins(self, run: RunDirectory, total: int) -> None:
        """Tell that the run begins, or goes on."""
        step = run.status().step
        if step == 0:
            self.alerts.started(step, total)
        else:
            self.alerts.restarted(step, total, f"training goes on from step {step}")

    def ends(self, step: int, total: int, best: Mapping[str, float]) -> None:
        """Tell that the run is finished, and how good its best evaluation was."""
        told = (names.VAL_MEL_LOSS, names.ATTENTION_SCORE, names.GATE_F1)
        self.alerts.done(step, total, {name: best[name] for name in told if name in best})


@contextlib.contextmanager
def steering(session: Session, run: RunDirectory, analysis: Path) -> Iterator[Steering]:
    """Everything that steers ``run``; what is to be told is sent before it ends.

    A trial is steered as the run that it stands for would be, but tells only its log.
    """
    told = session.params.tracking.alerts
    if session.trial:
        told = AlertParams(events=told.events, log=told.log)
    main, name = session.world.main, run.path.name
    manager = AlertManager.opened(told, name) if main else AlertManager(())
    phase_names = _phase_names(session.params.train.phases.count)
    alerts = AlertHook.of(manager, run.path, told, phase_names=phase_names)
    try:
        # Only the main process is steered; the others are told what came of it.
        hooks = [*_controllers(session, analysis), alerts] if main else []
        yield Steering(hooks, alerts)
    except Exception as error:
        alerts.on_exception(error)
        raise
    finally:
        manager.close()


def _controllers(session: Session, analysis: Path) -> list[Hook]:
    from kamerton.training.device_memory import has_room

    train = session.params.train
    hooks: list[Hook] = [GradientStabilityMonitor(train.quality_control)]
    if train.quality_control.enabled:
        hooks.append(QualityController.of(train))
    if train.batch_size_adaptation.enabled:
        hooks.append(
            BatchSizeAdapter(
                train.batch_size_adaptation, train.batch_size,
                has_room=has_room(session.data.device),
            )
        )  # fmt: skip
    if train.early_stopping.enabled:
        hooks.append(
            EarlyStopController.of(
                train.early_stopping, session.total_steps, interval=train.eval_interval_steps,
                drops=known_drops(train, session.total_steps),
                recovery=train.recovery, steps_per_epoch=session.data.steps_per_epoch,
            )
        )  # fmt: skip
    if not session.trial:
        history, card = session.runs / HISTORY_FILE, session.dataset.card
        hooks.append(QualityForecast.from_history(history, analysis, card))
    return hooks


def _phase_names(count: int) -> Sequence[str]:
    from kamerton.training.progress_note import PHASE_NAMES

    return PHASE_NAMES if count else ()
