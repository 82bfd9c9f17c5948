"""What a study found: best_params.yaml, trials.csv and a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import yaml

from kamerton.config.schema import TuneParams
from kamerton.config.search_space import Choice, yaml_text
from kamerton.config.train_section import ChangeParams
from kamerton.smart_tuner.objective import PARTS
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.study import as_overrides, baseline_of

if TYPE_CHECKING:
    import optuna

_LEAST_FOR_IMPORTANCE: Final = 8  # complete trials; with fewer, importances are noise
_CURVES: Final = 12
UNCOMPARABLE: Final = (
    "the mel spectrogram itself, and losses on different mel spectrograms do not compare; "
    "only the attention and stop-frame parts of the objective do"
)
_STATE_WORDS: Final = {"complete": "complete", "pruned": "ended early", "failed": "failed"}


def best_params_yaml(
    results: Sequence[TrialResult], best: TrialResult, changes: Sequence[ChangeParams] = ()
) -> str:
    """The best trial's parameters as the overrides that ``kamerton train`` lays on top.

    ``changes`` are those that generations found on top of them.
    """
    baseline = baseline_of(results)
    against = ""
    if baseline is not None and baseline.number != best.number:
        against = f"; the unchanged parameters reached {_number(baseline.objective)}"
    header = (
        f"# Written by `kamerton tune`: trial {best.number} of {len(results)}, "
        f"objective {_number(best.objective)} (lower is better){against}.\n"
    )
    values = as_overrides(best)
    if changes:
        found = [item.model_dump(mode="json", exclude_defaults=True) for item in changes]
        values.setdefault("train", {})["changes"] = found
    return header + yaml.safe_dump(values, sort_keys=True, allow_unicode=True)


def trials_csv(results: Sequence[TrialResult], names: Sequence[str]) -> str:
    """One row per trial; what a trial does not have is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "state", "objective", "step", *PARTS, *names, "reason"])
    for result in results:
        parts = [result.metrics.get(part, "") for part in PARTS]
        values = [yaml_text(result.params[name]) for name in names]
        objective = "" if result.objective is None else result.objective
        step = "" if result.step is None else result.step
        writer.writerow(
            [result.number, result.state, objective, step, *parts, *values, result.reason]
        )
    return buffer.getvalue()


def importances(
    trials: "Sequence[optuna.trial.FrozenTrial]", names: Sequence[str]
) -> dict[str, float]:
    """Share of the objective's variation that each dimension explains; empty with few trials."""
    import optuna

    complete = [item for item in trials if item.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < _LEAST_FOR_IMPORTANCE or len(names) < 2:
        return {}
    scratch = optuna.create_study(direction="minimize")
    scratch.add_trials(complete)
    found = optuna.importance.get_param_importances(scratch)
    return {name: float(share) for name, share in found.items()}


def render_page(
    results: Sequence[TrialResult], best: TrialResult, tune: TuneParams, shares: Mapping[str, float]
) -> str:
    """The page on a study; equal studies give equal bytes."""
    from kamerton.report.figures import bars, lines
    from kamerton.report.page import Page

    baseline = baseline_of(results)
    page = Page("Hyperparameter search", f"{len(results)} trials of {tune.trial_steps} steps")
    page.verdict(_verdict(best, baseline), ok=None if best.number == 0 else True)
    page.facts(_facts(results, best, baseline))

    page.section(
        "Curves",
        "The objective of each trial after so many steps, lower is better: validation mel loss "
        "against the baseline's (0.40), what attention lacks of a diagonal (0.25) and what the "
        "stop frame's F1 lacks of 1 (0.20), as far as they were measured.",
    )
    ranked = sorted(
        (item for item in results if item.curve), key=lambda item: item.objective or 0.0
    )
    curves = {
        f"trial {item.number}": (list(map(float, item.curve)), list(item.curve.values()))
        for item in ranked[:_CURVES]
    }
    page.figure(lines(curves, "optimiser steps", "objective"), "Objective by step, the best trials")
    page.figure(_progress(results), "Each trial and the best so far")

    names = list(tune.search_space)
    if audio := [name for name in names if name.startswith("audio.")]:
        page.text(f"Read with care: {', '.join(audio)} changes {UNCOMPARABLE}.")
    parts = [part for part in PARTS if any(part in item.metrics for item in results)]
    headers = ["trial", "state", "objective", "at step", *parts, *names, "why"]
    page.section("Trials", "Best first.")
    page.table([*headers], [_row(item, parts, names) for item in _ranked(results)])
    if shares:
        page.section("What mattered", "Share of the variation between trials that each explains.")
        page.figure(bars(dict(shares), "importance", limit=1.0), "Importance of each dimension")
    return page.render()


def _verdict(best: TrialResult, baseline: TrialResult | None) -> str:
    if baseline is None:
        return f"Trial {best.number} is best; the unchanged parameters did not complete."
    if best.number == baseline.number:
        return "No trial was better than the unchanged parameters; they are kept."
    return (
        f"Trial {best.number} is best: objective {_number(best.objective)}, "
        f"{_number(baseline.objective)} with the unchanged parameters."
    )


def _facts(
    results: Sequence[TrialResult], best: TrialResult, baseline: TrialResult | None
) -> dict[str, str]:
    count = {state: sum(item.state == state for item in results) for state in _STATE_WORDS}
    facts = {
        "best objective": _number(best.objective),
        "baseline": "–" if baseline is None else _number(baseline.objective),
    }
    return facts | {_STATE_WORDS[state]: str(number) for state, number in count.items()}


def _progress(results: Sequence[TrialResult]) -> bytes:
    """Dots for trials, hollow where ended early, and a line that falls with every better one."""
    from kamerton.report.figures import ACCENT, new_figure, to_png

    figure, axes = new_figure()
    for state, face in (("complete", ACCENT), ("pruned", "none")):
        found = [item for item in results if item.state == state and item.objective is not None]
        numbers, scores = [item.number for item in found], [item.objective for item in found]
        axes.scatter(numbers, scores, facecolors=face, edgecolors=ACCENT, label=_STATE_WORDS[state])
    complete = [item for item in results if item.state == "complete"]
    numbers = [item.number for item in complete]
    so_far = list(accumulate((item.objective or 0.0 for item in complete), min))
    numbers, so_far = [*numbers, results[-1].number], [*so_far, so_far[-1]]  # on to the end
    axes.step(numbers, so_far, where="post", color=ACCENT, linewidth=1.0, label="best so far")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="trial", ylabel="objective")
    axes.legend()
    return to_png(figure)


def _ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    order = {"complete": 0, "pruned": 1, "failed": 2}
    return sorted(results, key=lambda item: (order[item.state], item.objective or 0.0, item.number))


def _row(result: TrialResult, parts: Sequence[str], names: Sequence[str]) -> list[object]:
    values: list[Choice] = [result.params[name] for name in names]
    return [
        result.number,
        _STATE_WORDS[result.state],
        result.objective,
        result.step,
        *(result.metrics.get(part) for part in parts),
        *(_short(value) for value in values),
        result.reason,
    ]


def _short(value: Choice) -> str:
    return f"{value:.3g}" if isinstance(value, float) else yaml_text(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
