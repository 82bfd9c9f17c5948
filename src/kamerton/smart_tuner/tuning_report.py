"""What a study found: best_params.yaml, trials.csv and a page."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import yaml

from kamerton.config.search_space import Choice, yaml_text
from kamerton.config.train_section import ChangeParams
from kamerton.smart_tuner.objective import PARTS
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.report_story import STATE_WORDS, StudyStory
from kamerton.smart_tuner.study import as_overrides, baseline_of

if TYPE_CHECKING:
    import optuna

    from kamerton.report.page import Page

_LEAST_FOR_IMPORTANCE: Final = 8  # complete trials; with fewer, importances are noise
UNCOMPARABLE: Final = (
    "the mel spectrogram itself, and losses on different mel spectrograms do not compare; "
    "only the attention and stop-frame parts of the objective do"
)


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


def render_page(story: StudyStory) -> str:
    """The page on a study; equal studies give equal bytes."""
    from kamerton.report.page import Page
    from kamerton.smart_tuner.report_curves import (
        add_attention,
        add_curves,
        add_decisions,
        add_interventions,
    )
    from kamerton.smart_tuner.report_figures import progress
    from kamerton.smart_tuner.report_generations import add_generations

    trials, steps = len(story.results), story.tune.trial_steps
    page = Page("Hyperparameter search", f"{trials} trials of at most {steps} steps")
    page.verdict(_verdict(story), ok=None if story.best.number == 0 else True)
    page.facts(_facts(story))
    page.section(
        "The course of the search",
        "What a study costs is steps, not trials: those of trials that ended early or failed "
        "count, too. The line is the best complete trial so far; where it has been flat for long, "
        "more trials of this space are of little use.",
    )
    page.figure(progress(story), "Each trial when it ended, and the best so far")
    add_curves(page, story)
    add_decisions(page, story)
    add_attention(page, story)
    if story.tree is not None:
        add_generations(page, story.tree, story.best.curve)
    add_interventions(page, story)
    _add_values(page, story)
    _add_trials(page, story)
    return page.render()


def _verdict(story: StudyStory) -> str:
    best, baseline = story.best, story.baseline
    if baseline is None:
        return f"Trial {best.number} is best; the unchanged parameters did not complete."
    if best.number == baseline.number:
        return "No trial was better than the unchanged parameters; they are kept."
    return (
        f"Trial {best.number} is best: objective {_number(best.objective)}, "
        f"{_number(baseline.objective)} with the unchanged parameters."
    )


def _facts(story: StudyStory) -> dict[str, str]:
    from kamerton.smart_tuner.report_figures import story_steps_of_generations

    count = {state: sum(item.state == state for item in story.results) for state in STATE_WORDS}
    facts = {
        "best objective": _number(story.best.objective),
        "baseline": "–" if story.baseline is None else _number(story.baseline.objective),
    }
    facts |= {STATE_WORDS[state]: str(number) for state, number in count.items()}
    stopped = sum(story.run(item.number).stop is not None for item in story.results)
    if stopped:
        facts["ended by their stop controller"] = str(stopped)
    facts["steps of the trials"] = _grouped(sum(map(story.steps, story.results)))
    if story.tree is not None:
        facts["steps of the generations"] = _grouped(story_steps_of_generations(story))
        if story.tree.objective is not None:
            facts["after the generations"] = _number(story.tree.objective)
    return facts


def _add_values(page: "Page", story: StudyStory) -> None:
    """Which values were good, and which dimensions mattered."""
    from kamerton.report.figures import bars
    from kamerton.smart_tuner.report_figures import slices

    names = list(story.tune.search_space)
    page.section(
        "Values",
        "Each trial at its value of each dimension: filled where complete, hollow where ended "
        "early (its objective is of fewer steps), a diamond for the baseline, a star for the best. "
        "A cloud that falls to one side says where the next search should look; a best value at "
        "the edge says that the range is too narrow.",
    )
    page.figure(slices(story), "Objective against the value of each dimension")
    if audio := [name for name in names if name.startswith("audio.")]:
        page.text(f"Read with care: {', '.join(audio)} changes {UNCOMPARABLE}.")
    if story.shares:
        page.section(
            "What mattered",
            "Share of the variation between complete trials that each explains. Read it as a "
            "hint: trials are few, and the search took them where it hoped for good ones, not "
            "evenly.",
        )
        page.figure(bars(dict(story.shares), "importance", limit=1.0), "Importance of each")
    elif len(names) > 1:
        page.text(
            f"With fewer than {_LEAST_FOR_IMPORTANCE} complete trials it can not be said which "
            "dimension mattered most."
        )


def _add_trials(page: "Page", story: StudyStory) -> None:
    names = list(story.tune.search_space)
    parts = [part for part in PARTS if any(part in item.metrics for item in story.results)]
    ranked = _ranked(story.results)
    page.section("Trials", "Best first.")
    page.table(
        ["trial", "from", "state", "objective", "best at", "steps", *map(_words, parts), "why"],
        [_row(story, item, parts) for item in ranked],
        "how each went; measures are those of its best evaluation",
    )
    page.table(
        ["trial", "objective", *map(_words, names)],
        [
            (str(item.number), item.objective, *(_short(item.params[name]) for name in names))
            for item in ranked
        ],
        "what each ran with",
    )


def _ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    order = {"complete": 0, "pruned": 1, "failed": 2}
    return sorted(results, key=lambda item: (order[item.state], item.objective or 0.0, item.number))


def _row(story: StudyStory, result: TrialResult, parts: Sequence[str]) -> list[object]:
    return [
        str(result.number),
        story.role(result),
        STATE_WORDS[result.state],
        result.objective,
        result.step,
        story.steps(result),
        *(result.metrics.get(part) for part in parts),
        result.reason,
    ]


def _words(name: str) -> str:
    """A name that a narrow column can break: ``train.learning_rate`` as ``learning rate``."""
    return name.rpartition(".")[2].replace("_", " ")


def _short(value: Choice) -> str:
    return f"{value:.4g}" if isinstance(value, float) else yaml_text(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")
