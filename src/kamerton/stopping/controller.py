"""The stop decision: evidence modulates patience, a few rules decide alone, a guard forbids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.stopping import rules
from kamerton.stopping.memory import Memory
from kamerton.stopping.patience import evidence, patience
from kamerton.stopping.types import Decision, Observation, Vote
from kamerton.stopping.view import View
from kamerton.stopping.voters.attention import AttentionHealth
from kamerton.stopping.voters.cusum import Cusum, innovation
from kamerton.stopping.voters.forecast import Forecast, Outlook
from kamerton.stopping.voters.gate import GateHealth
from kamerton.stopping.voters.mann_kendall import MannKendall
from kamerton.stopping.voters.overfitting import Assessment, OverfittingRisk

_FORECAST_EVERY = 0.025  # of the plan: a forecast is the only voter that costs anything
_LONGEST = 0.6  # of the plan, that patience counted in evaluations may be
_NOISE_FLOOR = 0.01  # of the range: a smaller change of level is of no use to anyone


class StopController:
    """One run's decisions; fed evaluations in order, saved with the run's checkpoint.

    Patience, the plan and the steps of evaluations share one axis: optimiser steps or epochs.
    A block of evaluations, a 96th of the plan, is a check: voters and rules look again then, and
    between checks only the patience and what is no number can end a run.
    """

    def __init__(
        self,
        params: EarlyStoppingParams,
        planned: float,
        interval: float = 1.0,
        schedule_drops: Sequence[float] = (),
    ) -> None:
        """A controller that has seen nothing.

        Args:
            params: ``train.early_stopping``.
            planned: The plan's last step.
            interval: Steps between evaluations, as far as it is known.
            schedule_drops: Steps at which the learning rate is known to drop.

        Raises:
            ValueError: planned or interval is not above 0.
        """
        if planned <= 0 or interval <= 0:
            raise ValueError("the plan and the interval of evaluations must be above 0")
        self._params = params
        self._planned = float(planned)
        self._interval = float(interval)
        self._drops = sorted(float(drop) for drop in schedule_drops)
        self._alpha_z = NormalDist().inv_cdf(1.0 - params.mann_kendall_alpha)
        self._cusum = Cusum(params.cusum.slack, params.cusum.threshold)
        self._trend = MannKendall(params.mann_kendall_alpha, self._window())
        self._forecast = Forecast(params.forecast.min_improvement)
        self._attention = AttentionHealth(params.attention_monitoring)
        self._gate = GateHealth(params.overfitting.premature_stopping_threshold)
        self._overfitting = OverfittingRisk(
            params.overfitting, attention=params.attention_monitoring.enabled
        )
        self._forget()

    def _window(self) -> int:
        """Blocks that the trend test looks at: a quarter of the plan, 10 to 24."""
        return max(10, min(24, int(self._planned / self._interval / 4)))

    def _forget(self) -> None:
        self._memory = Memory(self._planned, self._interval)
        self._cusum.restore({"rising": 0.0, "falling": 0.0, "since_alarm": -1, "alarm": ""})
        self._votes: tuple[Vote, ...] = ()
        self._status = "not_converged"
        self._risk = Assessment("low", 0.0, ())
        self._ahead: Outlook | None = None
        self._forecast_step = -math.inf
        self._objection = "there is no forecast"
        self._evidence = 0.0
        self._falling = False
        self._streaks: dict[str, int] = {}
        self._last: Decision | None = None

    def observe(self, observation: Observation) -> Decision:
        """Take one evaluation; a step that is not after the last one changes nothing."""
        last = self._last
        if last is not None and (last.stop or observation.step <= last.step):
            return last
        if not math.isfinite(observation.value):
            decision = self._not_finite(observation)
        else:
            decision = self._finite(observation)
        self._last = decision
        return decision

    def intervened(self, step: float, *, attention_anew: bool = False) -> None:
        """Someone else changed the run after ``step``, a recovery say.

        Patience begins anew, and so does what rules counted and the sums; the best stays.

        Args:
            step: Of the last evaluation before it, or later.
            attention_anew: Attention was lost and made anew: it has not aligned yet.
        """
        self._memory.intervened(step, attention_anew=attention_anew)
        self._cusum.reset()
        self._streaks = {}

    def _not_finite(self, observation: Observation) -> Decision:
        stop = self._params.rules.not_finite and self._params.enabled
        return self._decision(
            observation.step,
            "not_finite" if stop else "",
            f"the evaluation gave {observation.value}",
        )

    def _finite(self, observation: Observation) -> Decision:
        memory, params = self._memory, self._params
        threshold = params.attention_monitoring.guard_threshold
        checked = memory.take(observation, params.min_delta, threshold)
        cause = reason = ""
        if checked:
            cause, reason = self._check(memory.view())
        if not cause and params.rules.patience:
            allowed = self._patience()
            if self._waited() >= allowed and not self._guard(allowed):
                cause = "patience"
                reason = f"nothing better for {self._waited():g}, {allowed:g} are borne"
        return self._decision(observation.step, cause if params.enabled else "", reason)

    def _check(self, view: View) -> tuple[str, str]:
        """Ask voters and rules; the cause and the sentence of the rule that ends the run."""
        params = self._params
        fresh = self._vote(view)
        now = rules.Situation(
            view=view,
            waited=self._waited(),
            ahead=self._ahead,
            cusum=None if "cusum" in params.silent_voters else self._cusum,
            risk=self._risk,
            unaligned=self._unaligned(),
            aligned_for=self._aligned_for(),
            lost_for=self._lost_for(),
            noise=self._noise(view),
            annealing=self._memory.annealing,
            drop_ahead=self._next_drop() is not None,
        )
        if fresh:
            self._objection = rules.forecast_objection(now, params)
            self._count("forecast", holds=not self._objection)
        self._count("divergence", holds=rules.diverges(now, params))
        self._count("collapse", holds=rules.collapses(now, params))
        self._count("overfitting", holds=rules.overfits(now, self._patience()))
        return self._verdict(now)

    def _verdict(self, now: rules.Situation) -> tuple[str, str]:
        """The first rule in force that has held for long enough; ("", "") for none."""
        if self._memory.evaluations < self._params.min_evaluations:
            return "", ""
        best, hard = self._memory.best_step, rules.HARD_CHECKS
        chance = f"{now.ahead.probability:.1%}" if now.ahead else "no"
        said = (
            ("divergence", hard, f"the loss went up for good since its best at {best}"),
            ("collapse", hard, f"attention is lost and the loss is above its best at {best}"),
            ("overfitting", hard, f"overfitting since {best}, and speech gets no better"),
            ("forecast", rules.FORECAST_CHECKS, f"{chance} chance that the rest improves anything"),
        )
        for name, needed, reason in said:
            if getattr(self._params.rules, name) and self._streaks.get(name, 0) >= needed:
                return name, reason
        return "", ""

    def _count(self, name: str, *, holds: bool) -> None:
        self._streaks[name] = self._streaks.get(name, 0) + 1 if holds else 0

    def _vote(self, view: View) -> bool:
        """Every voter's row; True when the forecast is a new one."""
        params, silent = self._params, self._params.silent_voters
        noise = max(view.noise, _NOISE_FLOOR * view.span)
        self._cusum.update(innovation(view.recent, noise))
        fresh = view.step - self._forecast_step >= _FORECAST_EVERY * self._planned
        if fresh:
            self._ahead = None if "forecast" in silent else self._forecast.outlook(view)
            self._forecast_step = view.step
        self._risk = self._overfitting.assess(view)
        rows = (
            self._cusum.vote(view),
            self._trend.vote(view),
            self._forecast.explain(self._ahead),
            self._attention.vote(view),
            self._gate.vote(view),
            self._overfitting.explain(self._risk),
        )
        self._votes = tuple(
            Vote(row.voter, row.group, 0.0, 0.0, "not heard") if row.voter in silent else row
            for row in rows
        )
        self._evidence = evidence(self._votes, params.ensemble_weights)
        aligned_at = params.attention_monitoring.alignment_threshold
        self._falling = rules.falls(view, self._window(), self._alpha_z)
        self._status = rules.status(view, self._alpha_z, aligned_at)
        return fresh

    def _unaligned(self) -> bool:
        memory = self._memory
        enabled = self._params.attention_monitoring.enabled
        return enabled and memory.has_attention and memory.aligned_step is None

    def _aligned_for(self) -> float | None:
        since = self._memory.aligned_step
        enabled = self._params.attention_monitoring.enabled
        return self._memory.step - since if enabled and since is not None else None

    def _noise(self, view: View) -> float:
        """Of one evaluation, as a share of the range, were those of a block independent."""
        block = self._planned / self._interval / view.blocks
        return view.noise * math.sqrt(block) / view.span if view.span > 0.0 else 0.0

    def _lost_for(self) -> float | None:
        """Share of the plan since attention collapsed; None where it reads, or is not watched."""
        since = self._memory.lost_step
        enabled = self._params.attention_monitoring.enabled and self._params.rules.collapse
        return (
            (self._memory.step - since) / self._planned if enabled and since is not None else None
        )

    def _patience(self) -> float:
        share = self._memory.step / self._planned
        allowed = patience(
            self._params,
            self._planned,
            share,
            self._evidence,
            aligned=not self._unaligned(),
            misfit=self._ahead.misfit if self._ahead else 0.0,
        )
        if not self._params.adaptive_patience:
            return allowed
        # A better value is missed by chance in few evaluations, however many steps they span.
        least = min(self._params.patience_evaluations * self._interval, _LONGEST * self._planned)
        return max(allowed, least)

    def _waited(self) -> float:
        """Steps since anything better, since attention aligned, and since the last known drop."""
        memory, params = self._memory, self._params
        since = max(memory.better_step, memory.intervened_step or 0.0)
        aligned_for = self._aligned_for()
        if params.rules.guard and aligned_for is not None:
            since = max(since, memory.step - aligned_for)
        if params.rules.schedule:
            since = max([since, *(drop for drop in self._drops if drop <= memory.step)])
        return memory.step - since

    def _next_drop(self) -> float | None:
        """Steps to the next known drop of the learning rate."""
        ahead = [drop - self._memory.step for drop in self._drops if drop > self._memory.step]
        return ahead[0] if ahead else None

    def _guard(self, patience_steps: float) -> str:
        memory = self._memory
        return rules.guard(
            self._params,
            share=memory.step / self._planned,
            evaluations=memory.evaluations,
            unaligned=self._unaligned(),
            next_drop=self._next_drop(),
            patience_steps=patience_steps,
            borne=self._waited() / patience_steps,
            falling=self._falling,
            ahead=self._ahead,
            lost_for=self._lost_for(),
        )

    def _decision(self, step: float, cause: str, reason: str) -> Decision:
        allowed = self._patience() if self._memory.evaluations else self._planned
        waited = self._waited() if self._memory.evaluations else 0.0
        guarded = self._guard(allowed)
        if not reason:
            why = f"; {guarded}" if guarded else ""
            reason = f"{waited:g} of {allowed:.0f} without anything better{why}"
        remaining = self._ahead.remaining if self._ahead else None
        return Decision(
            step=step,
            stop=bool(cause),
            cause=cause,
            reason=reason,
            votes=self._votes,
            evidence=self._evidence,
            patience_steps=allowed,
            waited_steps=waited,
            best_step=self._memory.best_step,
            guarded=bool(guarded),
            overfitting=self._risk.risk,
            overfitting_score=self._risk.score,
            status=self._status,
            remaining_steps=remaining,
        )

    def state(self) -> dict[str, Any]:
        """Everything it remembers, as plain JSON values; empty for one that saw nothing."""
        if self._last is None:
            return {}
        return {
            "memory": self._memory.state(),
            "cusum": self._cusum.state(),
            "votes": [asdict(vote) for vote in self._votes],
            "evidence": self._evidence,
            "status": self._status,
            "risk": asdict(self._risk),
            "ahead": asdict(self._ahead) if self._ahead else None,
            "forecast_step": self._forecast_step if math.isfinite(self._forecast_step) else None,
            "objection": self._objection,
            "falling": self._falling,
            "streaks": dict(self._streaks),
            "last": asdict(self._last),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``; an empty mapping is a fresh controller."""
        self._forget()
        if not state:
            return
        self._memory.restore(state["memory"])
        self._cusum.restore(state["cusum"])
        self._votes = _votes(state["votes"])
        self._evidence = float(state["evidence"])
        self._status = state["status"]
        risk = state["risk"]
        self._risk = Assessment(risk["risk"], risk["score"], tuple(risk["signs"]))
        self._ahead = Outlook(**state["ahead"]) if state["ahead"] else None
        step = state["forecast_step"]
        self._forecast_step = -math.inf if step is None else step
        self._objection = state["objection"]
        self._falling = bool(state["falling"])
        self._streaks = dict(state["streaks"])
        self._last = Decision(**{**state["last"], "votes": _votes(state["last"]["votes"])})


def _votes(rows: Sequence[Mapping[str, Any]]) -> tuple[Vote, ...]:
    return tuple(Vote(**row) for row in rows)
