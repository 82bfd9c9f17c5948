"""The page's part on how trials went: curves, decisions, votes, attention, interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kamerton.report.curves import Curve, Mark, MarkKind, Panel, Timeline, draw_panels
from kamerton.report.page import Page
from kamerton.report.votes import add_votes, decision_words
from kamerton.smart_tuner.report_story import RunRecord, StudyStory
from kamerton.smart_tuner.trials import TrialResult
from kamerton.tracking import names
from kamerton.tracking.improvement_plan import HEADERS

MOST_CURVES: Final = 40
MOST_VOTE_TABLES: Final = 5
_OBJECTIVE: Final = "objective"
_SHARE: Final = (-0.03, 1.03)
# Name, title, limits and whether logarithmic, of each series beside the objective.
_SERIES: Final[Sequence[tuple[str, str, tuple[float, float] | None, bool]]] = (
    (names.VAL_MEL_LOSS, "validation mel loss", None, True),
    (names.ATTENTION_SCORE, "attention: diagonality, free-running", (-0.1, 1.03), False),
    (names.GATE_F1, "stop frame found (F1)", _SHARE, False),
)
_ATTENTION: Final = (
    (names.ATTENTION_SCORE, "diagonality", (-0.1, 1.03)),
    (names.ATTENTION_COVERAGE, "coverage", _SHARE),
    (names.ATTENTION_FOCUS, "focus", _SHARE),
    (names.ATTENTION_MONOTONICITY, "monotonicity", _SHARE),
    (names.ATTENTION_ENTROPY, "entropy (0 is sharp)", _SHARE),
    (names.ALIGNED_SHARE, "share of sentences aligned", _SHARE),
)


def add_curves(page: Page, story: StudyStory) -> None:
    """How every trial learned, and where and why it ended."""
    page.section(
        "Curves",
        "The objective, lower is better, is made of the validation mel loss against the baseline's "
        "(0.40), what attention lacks of a diagonal (0.25), what the stop frame's F1 lacks of 1 "
        "(0.20) and the mel-cepstral distortion against the baseline's (0.15), as far as they were "
        "measured. A trial that is far above the others at the same step is ended early, so that "
        "its steps go to a better one.",
    )
    shown = _shown(story)
    end = float(max([1, *(story.steps(item) for item in story.results)]))
    page.figure(
        draw_panels(trial_panels(story, shown), Timeline(end), one_legend=True),
        f"the best trial, the baseline and the others{_left_out(story, shown)}; numbers at the "
        "marks are trials",
    )
    _add_stops(page, story)


def _left_out(story: StudyStory, shown: Sequence[TrialResult]) -> str:
    curves = sum(bool(item.curve) for item in story.results)
    return f" (the best {len(shown)} of {curves})" if curves > len(shown) else ""


def _shown(story: StudyStory) -> list[TrialResult]:
    """Trials that have a curve: the best of them, baseline and best trial among them."""
    known = [item for item in story.results if item.curve or story.run(item.number).curves]
    always = {0, story.best.number}
    ranked = sorted(
        known,
        key=lambda item: (
            item.number not in always, item.objective is None, item.objective or 0.0, item.number
        ),
    )  # fmt: skip
    return ranked[:MOST_CURVES]


def trial_panels(story: StudyStory, shown: Sequence[TrialResult]) -> list[Panel]:
    """A panel per series, each with a curve per trial and marks where something was decided."""
    objective = {
        item.number: (list(map(float, item.curve)), list(item.curve.values())) for item in shown
    }
    panels = [_trial_panel(story, shown, _OBJECTIVE, objective)]
    for name, title, limits, logarithmic in _SERIES:
        found = {
            item.number: curve
            for item in shown
            if (curve := story.run(item.number).curves.get(name))
        }
        panels.append(
            _trial_panel(story, shown, title, found, limits=limits, logarithmic=logarithmic)
        )
    return panels


def _trial_panel(
    story: StudyStory, shown: Sequence[TrialResult], title: str, found: Mapping[int, Curve],
    **how: Any,
) -> Panel:  # fmt: skip
    curves: dict[str, Curve] = {}
    marks: list[Mark] = []
    names_of = {item.number: _name(story, item.number) for item in shown}
    for item in shown:
        curve = found.get(item.number)
        if curve and curve[0]:
            curves[names_of[item.number]] = curve
            marks += _marks(story, item, curve)
    known = {0, story.best.number}
    faint = frozenset(name for number, name in names_of.items() if number not in known)
    dashed = frozenset({names_of[0]} if 0 in names_of and story.best.number != 0 else ())
    return Panel(title, curves, faint=faint, dashed=dashed, marks=marks, **how)


def _name(story: StudyStory, number: int) -> str:
    if number == story.best.number:
        return f"trial {number}, the best" + (" and the baseline" if number == 0 else "")
    return "baseline" if number == 0 else f"trial {number}"


def _marks(story: StudyStory, item: TrialResult, curve: Curve) -> list[Mark]:
    run, name, last = story.run(item.number), str(item.number), float(curve[0][-1])
    at: list[tuple[float, MarkKind]] = [(float(row.step), "intervention") for row in run.plan]
    if item.state == "pruned":
        at.append((last, "pruned"))
    if item.state == "failed":
        at.append((last, "failed"))
    if run.stop is not None:
        at.append((float(run.stop.step or 0), "stopped"))
    if item.number == story.best.number and item.step is not None:
        at.append((float(item.step), "best"))
    return [Mark(step, _value_at(curve, step), kind, name) for step, kind in at]


def _value_at(curve: Curve, step: float) -> float:
    """The value at a step, or at the last before it."""
    before = [value for at, value in zip(*curve, strict=True) if at <= step]
    return before[-1] if before else curve[1][0]


def _add_stops(page: Page, story: StudyStory) -> None:
    """Who ended which trial before its steps were used up, and why."""
    rows = []
    for item in story.results:
        stop = story.run(item.number).stop
        if stop is not None:
            cause = str(stop.fields.get("cause", "")).replace("_", " ")
            saved = _saved(stop.fields.get("planned_steps"), stop.step)
            rows.append((item.number, stop.step, f"its stop controller: {cause}",
                         str(stop.fields.get("reason", "")), saved))  # fmt: skip
        elif item.state == "pruned":
            last = story.steps(item)
            rows.append((item.number, last, "the search", item.reason,
                         _saved(story.tune.trial_steps, last)))  # fmt: skip
    if rows:
        page.table(
            ("trial", "at step", "ended by", "why", "steps saved"),
            rows,
            "trials that ended before their steps were used up",
        )


def _saved(planned: object, step: int | None) -> int | None:
    if not isinstance(planned, int | float) or step is None:
        return None
    return max(0, int(planned) - step)


def add_decisions(page: Page, story: StudyStory) -> None:
    """What the voters said in the best trial, and in those that they ended."""
    others = [item.number for item in story.results if story.run(item.number).stop is not None]
    numbers = list(dict.fromkeys([story.best.number, *others]))
    told = [number for number in numbers if story.run(number).decisions]
    if not told:
        return
    page.section(
        "Whether to go on",
        "At every evaluation of a trial, voters look at its curves: the statistics of the loss, a "
        "forecast of it, and the health of attention. Together they make the patience longer or "
        "shorter; hard rules end a run that diverges or loses its attention.",
    )
    for number in told[:MOST_VOTE_TABLES]:
        run = story.run(number)
        last = run.stop or run.decisions[-1]
        page.text(f"{_capital(_name(story, number))}: {decision_words(last.step, last.fields)}")
        add_votes(page, last.fields, f"the votes in trial {number} at step {last.step}")
    if len(told) > MOST_VOTE_TABLES:
        page.text(f"The votes of {len(told) - MOST_VOTE_TABLES} more trials are in their records.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def add_attention(page: Page, story: StudyStory) -> None:
    """How attention came about in the best trial, against the baseline."""
    panels = attention_panels(story)
    if not any(panel.curves for panel in panels):
        return
    page.section(
        "How attention came about",
        "Free-running, medians over fixed sentences: a voice that can read goes along its text in "
        "one rising line. Diagonality is how much of it lies near that line, coverage how much of "
        "the text is read, focus how sharply; 1 is best, but for entropy. A trial is short: that a "
        "curve begins to rise, and when, tells more than where it ends.",
    )
    runs = [story.run(story.best.number), story.run(0)]
    end = float(max([1, *(run.steps for run in runs)]))
    page.figure(
        draw_panels(panels, Timeline(end), columns=3, one_legend=True),
        "attention of the best trial" + (", and of the baseline" if story.best.number else ""),
    )


def attention_panels(story: StudyStory) -> list[Panel]:
    """A panel per measure: the best trial, and the baseline to compare with."""
    best, base = story.best.number, _name(story, 0)
    panels = []
    for name, title, limits in _ATTENTION:
        found = {_name(story, number): story.run(number).curves.get(name) for number in (best, 0)}
        curves = {label: curve for label, curve in found.items() if curve}
        dashed = frozenset({base} if best else ())
        panels.append(Panel(title, curves, dashed=dashed, limits=limits))
    return panels


def add_interventions(page: Page, story: StudyStory) -> None:
    """What was done about trouble in trials and generations, and what came of it."""
    records: list[tuple[str, RunRecord]] = [
        *((f"trial {item.number}", story.run(item.number)) for item in story.results),
        *story.candidates.items(),
    ]
    rows = [(label, *row.cells) for label, run in records for row in run.plan]
    if rows:
        page.section(
            "Interventions",
            "What was done in the middle of a run about trouble, and whether it helped; what did "
            "harm is undone.",
        )
        page.table(("run", *HEADERS), rows, "recoveries and quality control, in their order")
