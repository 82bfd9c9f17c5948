"""Where a run stands, besides weights and optimiser: what a checkpoint keeps of the loop.

Everything that decides what the next step does is either a function of the seed and the step, or
stands here. So a run that goes on from a checkpoint makes the same numbers as one that never
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class PhaseState:
    """Which phase the run is in.

    Attributes:
        index: From 0.
        since_step: The step it was entered at.
        met: Evaluations in a row that met its goal.
        reason: Why it was entered: start, goal, share or latest.
        aligned: Evaluations in a row at which attention could do without its guide; once they are
            enough, they stay so.
        late: Whether any phase so far had to end without its goal.
    """

    index: int = 0
    since_step: int = 0
    met: int = 0
    reason: str = "start"
    aligned: int = 0
    late: bool = False


@dataclass(frozen=True, slots=True)
class ClipState:
    """What adaptive clipping remembers: the newest gradient norms, the oldest first."""

    norms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class GateState:
    """What the adaptive gate loss remembers.

    Attributes:
        weight: How much the gate counts now.
        hits: Stop frames found since the weight was last looked at.
        fired: Stops predicted since then.
        actual: Stops there were since then.
    """

    weight: float = 1.3
    hits: int = 0
    fired: int = 0
    actual: int = 0


@dataclass(frozen=True, slots=True)
class TrialState:
    """An intervention whose effect is not judged yet, and how things stood before it.

    Attributes:
        step: When it was made.
        cause: The trouble.
        action: What was done.
        quality: The last evaluation's figure before it.
        loss: Mean training loss between that evaluation and the intervention.
        learning_rate_factor: What recoveries had left of it.
        clip_factor: What recoveries had left of it.
        bad_steps: How many steps had not been finite by then.
    """

    step: int
    cause: str
    action: str
    quality: float
    loss: float
    learning_rate_factor: float
    clip_factor: float
    bad_steps: int = 0


@dataclass(frozen=True, slots=True)
class RecoveryState:
    """What was done about trouble so far.

    Attributes:
        count: Interventions made.
        last_step: The step of the last one; 0 before the first.
        last_cause: Its trouble; "" before the first.
        learning_rate_factor: What they left of the learning rate.
        clip_factor: What they left of the clipping threshold.
        warmup_step: Where the learning rate last began to rise again; 0 for never.
        loud_steps: Steps in a row whose gradient was too large.
        best_diagonality: The best evaluation's attention so far, of the weights in use.
        first_mel_loss: The first evaluation's mel loss that was a number; infinite before it.
        best_mel_loss: The least of all evaluations; infinite before the first.
        mel_loss: The last evaluation's.
        collapses: How often attention was lost.
        attention_reset_step: Where attention was last made anew; 0 for nowhere.
        bad_steps: Steps that were not finite, without those of a loss scaler that finds its scale.
        diverged: Evaluations in a row whose mel loss was far above the best.
        restart_step: Where a plateau made the learning rate rise anew; 0 for nowhere.
        restart_gain: What that multiplied ``learning_rate_factor`` by, while it is on trial or has
            proved itself; 1 once it was taken back.
        gave_up: The trouble that ended the run, there being no intervention left; "" for none.
        trial: The intervention to be judged; None where there is none.
    """

    count: int = 0
    last_step: int = 0
    last_cause: str = ""
    learning_rate_factor: float = 1.0
    clip_factor: float = 1.0
    warmup_step: int = 0
    loud_steps: int = 0
    best_diagonality: float = 0.0
    first_mel_loss: float = float("inf")
    best_mel_loss: float = float("inf")
    mel_loss: float = float("inf")
    collapses: int = 0
    attention_reset_step: int = 0
    bad_steps: int = 0
    diverged: int = 0
    restart_step: int = 0
    restart_gain: float = 1.0
    gave_up: str = ""
    trial: TrialState | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``asdict``."""
        given = dict(values)
        trial = given.pop("trial", None)
        given.pop("first_quality", None)  # of checkpoints made before mel losses were compared
        return cls(**given, trial=TrialState(**trial) if trial else None)


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where a run stands, besides weights and optimiser.

    Attributes:
        step: Optimiser steps made, skipped ones included.
        epoch: The epoch that the next step belongs to.
        batch: The group of batches of that epoch that the next step takes.
        epoch_share: The share of the clips, the shortest, that this epoch is made of.
        best_step: When the best evaluation was made; 0 before the first.
        best_quality: Its figure of merit, lower is better; infinite before the first.
        best_values: What it measured.
        awaits_evaluation: Whether this step is to be evaluated and was not yet.
        evaluated_step: When the last evaluation was made.
        quality: Its figure of merit; infinite before the first.
        diagonality: Its free-running attention, 0 to 1.
        forced_diagonality: Its teacher-forced attention.
        skipped: Steps that were not applied because they were not finite.
        skipped_in_a_row: Those since the last good step.
        phase, clip, gate, recovery: See there.
        loss_sum: Of the losses of the applied steps since the last evaluation.
        loss_steps: How many those are.
        adjustments: What hooks make of values: factor by name, of ``controls``.
        batch_scale: What hooks make of the batch size, from the next epoch on.
        epoch_scale: What they made of it for this epoch.
        stopped: Why a hook ended the run; "" where none did.
        steered_by: Which hook made each of them: its name by that of the value, or by
            ``batch_scale`` or ``stopped``.
        hooks: What each hook remembers, by its name.
        hooks_failed: Names of the hooks that failed, and are left out.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    epoch_share: float = 1.0
    best_step: int = 0
    best_quality: float = float("inf")
    best_values: dict[str, float] = field(default_factory=dict)
    awaits_evaluation: bool = False
    evaluated_step: int = 0
    quality: float = float("inf")
    diagonality: float = 0.0
    forced_diagonality: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    phase: PhaseState = PhaseState()
    clip: ClipState = ClipState()
    gate: GateState = GateState()
    recovery: RecoveryState = RecoveryState()
    loss_sum: float = 0.0
    loss_steps: int = 0
    adjustments: dict[str, float] = field(default_factory=dict)
    batch_scale: float = 1.0
    epoch_scale: float = 1.0
    stopped: str = ""
    steered_by: dict[str, str] = field(default_factory=dict)
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    hooks_failed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``; raises KeyError or TypeError for anything else."""
        given = dict(values)
        clip = ClipState(tuple(given.pop("clip")["norms"]))
        return cls(
            phase=PhaseState(**given.pop("phase")),
            clip=clip,
            gate=GateState(**given.pop("gate")),
            recovery=RecoveryState.from_dict(given.pop("recovery")),
            hooks_failed=tuple(given.pop("hooks_failed", ())),
            **given,
        )
