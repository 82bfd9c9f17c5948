"""The page on a study: every figure and table is of the study's data, and says what it means."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kamerton.report.curves import Panel
from kamerton.report.page import Page
from kamerton.smart_tuner import report_curves, report_figures, report_generations, tuning_report
from kamerton.smart_tuner.report_story import RunRecord, StudyStory, read_story
from kamerton.tracking import JsonlTracker, Record, RunDirectory, names
from kamerton.tracking.run_directory import list_runs
from tests.unit.smart_tuner.sample_study import (
    STEPS,
    TUNE,
    decision,
    make_story,
    objective_at,
    results,
    values_at,
    write_study,
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> StudyStory:
    return make_story(tmp_path_factory.mktemp("study"))


class Tables(HTMLParser):
    """Tables of a page as rows of cells, by caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._place = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag in ("td", "th", "caption"):
            self._place = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.found[self._caption] = self._rows
        self._place = ""

    def handle_data(self, data: str) -> None:
        if self._place == "caption":
            self._caption += data
        elif self._place:
            self._rows[-1][-1] += data


def tables_of(page: Page) -> list[list[list[str]]]:
    return list(Tables(page.render()).found.values())


def captured(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Panel]:
    """What a module gives to be drawn from now on."""
    drawn: list[Panel] = []

    def draw(panels: Any, timeline: Any, **_: Any) -> bytes:
        drawn.extend(panels)
        return repr((panels, timeline)).encode()

    monkeypatch.setattr(module, "draw_panels", draw)
    return drawn


def figure_of(monkeypatch: pytest.MonkeyPatch, module: Any, draw: Any) -> Any:
    """The matplotlib figure that would become a picture."""
    monkeypatch.setattr(module, "to_png", lambda figure: figure)
    return draw()


def test_a_story_is_read_from_the_studys_folder(story: StudyStory) -> None:
    assert sorted(story.runs) == [0, 1, 2, 4, 5]  # the trainer of 3 made no run
    assert [story.steps(item) for item in story.results] == [200, 200, 60, 0, 140, 200]
    assert story.run(4).stop is not None
    assert story.run(4).stop.step == 140
    assert [story.run(number).stop for number in (0, 1, 2, 3, 5)] == [None] * 5
    assert [story.role(item) for item in story.results][:3] == [
        "baseline",
        "from history",
        "search",
    ]
    steps, values = story.run(5).curves[names.VAL_MEL_LOSS]
    assert values == [values_at(5, int(step))[names.VAL_MEL_LOSS] for step in steps]
    # What a candidate did before its generation is its parent's.
    made = story.candidates["g2c1"].curves[names.TRAIN_LOSS][0]
    assert (made[0], made[-1]) == (160, 180)


def test_what_a_trainer_did_after_it_was_given_up_does_not_count(tmp_path: Path) -> None:
    """It depends on how soon it heard of it, and equal studies must have equal pages."""
    folder = write_study(tmp_path)
    for number in (2, 3):
        runs = folder.trial_runs(number)
        run = next(iter(list_runs(runs)), None) or RunDirectory.create(
            runs, name="trial", fingerprint="f" * 8, params={}
        )
        tracker = JsonlTracker(run.path)
        for step in (80, 100):
            value = math.nan if step == 80 and number == 3 else 1.0
            tracker.log_metrics({names.VAL_MEL_LOSS: value}, step)
        tracker.close("failed")
    found = results()
    story = read_story(folder, found, found[5], TUNE, shares={}, tree=None, from_history=0)
    assert story.steps(found[2]) == 60
    assert story.steps(found[3]) == 80
    assert max(story.run(2).curves[names.VAL_MEL_LOSS][0]) == 60


def test_the_page_holds_all_of_it_and_equal_studies_give_equal_pages(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured(monkeypatch, report_curves)
    captured(monkeypatch, report_generations)
    monkeypatch.setattr(report_generations, "draw_tree", lambda *_, **__: b"tree")
    for name in ("progress", "slices"):
        monkeypatch.setattr(report_figures, name, lambda _, name=name: name.encode())
    page = tuning_report.render_page(story)
    assert page == tuning_report.render_page(story)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "The course of the search", "Curves", "Whether to go on", "How attention came about",
        "Generations", "Interventions", "Values", "What mattered", "Trials",
    ]  # fmt: skip
    assert page.count("<img") == 7
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    for raw in ("<still>", "<a>", "<failed>"):
        assert raw not in page
    assert "attention &lt;still&gt; sharpens" in page
    for words in ("changes the mel spectrogram itself", "Read it as a hint"):
        assert words in page
    facts = dict(re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page))
    assert {
        "800": "steps of the trials",
        "0.2832": "after the generations",
    }.items() <= facts.items()


def test_a_study_without_records_generations_or_votes_has_a_page(story: StudyStory) -> None:
    bare = StudyStory(story.results, story.best, story.tune)
    page = tuning_report.render_page(bare)
    for heading in ("Whether to go on", "How attention", "Generations", "Interventions",
                    "What mattered"):  # fmt: skip
        assert f"<h2>{heading}" not in page
    assert "fewer than 8 complete trials" in page
    assert page.count("<img") == 3


def test_trials_stand_where_the_study_was_when_they_ended(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(monkeypatch, report_figures, lambda: report_figures.progress(story))
    (axes,) = figure.axes
    dots = {item.get_label(): np.asarray(item.get_offsets()) for item in axes.collections}
    score = {item.number: item.objective for item in story.results}
    assert dots["complete"].tolist() == [[400, score[1]], [600, score[4]], [800, score[5]]]
    assert dots["ended early"].tolist() == [[460, score[2]]]
    assert dots["failed"][:, 0].tolist() == [460]
    assert dots["from history"].tolist() == [[400, score[1]]]
    assert dots["baseline: unchanged parameters"].tolist() == [[200, score[0]]]
    # trunk 120, six candidates of 30 and a cool-down of 8 each, and 20 to the end
    spent = 800 + 120 + 6 * 38 + 20
    assert dots["after the generations"].tolist() == [[spent, 0.2832]]
    (line,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert list(line.get_xdata()) == [200, 400, 600, 800, spent, spent]
    assert list(line.get_ydata()) == [score[0], score[1], score[4], score[5], 0.2832, 0.2832]


def test_the_best_so_far_never_rises_and_counts_no_trial_that_ended_early(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lucky = dataclasses.replace(story.results[2], objective=0.01)
    results = [story.results[0], lucky, story.results[1], dataclasses.replace(story.results[0],
               number=6, objective=2.0)]  # fmt: skip
    changed = dataclasses.replace(story, results=results, best=results[2], tree=None)
    figure = figure_of(monkeypatch, report_figures, lambda: report_figures.progress(changed))
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "best so far"]
    first, second = results[0].objective, results[2].objective
    assert list(line.get_ydata()) == [first, second, second, second]


def test_slices_show_each_value_with_its_objective(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(monkeypatch, report_figures, lambda: report_figures.slices(story))
    rate, dropout, batch, fmax = figure.axes
    scored = [item for item in story.results if item.objective is not None]

    def places(axes: Any) -> list[list[float]]:
        return [np.asarray(dot.get_offsets())[0].tolist() for dot in axes.collections]

    assert places(rate) == [[item.params["train.learning_rate"], item.objective] for item in scored]
    assert rate.get_xscale() == "log"
    assert dropout.get_xscale() == "linear"
    assert [label.get_text() for label in batch.get_xticklabels()] == ["8", "16", "32"]
    assert [place for place, _ in places(batch)] == [0.0, 1.0, 2.0, 1.0, 2.0]
    assert [label.get_text() for label in fmax.get_xticklabels()] == ["8000.0", "null"]
    hollow = [not len(dot.get_facecolor()) for dot in rate.collections]
    assert hollow == [item.state != "complete" for item in scored]
    shapes = [len(dot.get_paths()[0].vertices) for dot in rate.collections]
    assert shapes.count(shapes[4]) == 1  # the best is seen among them


def test_curves_are_those_of_the_trials_with_marks_where_something_was_decided(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = captured(monkeypatch, report_curves)
    page = Page("t")
    report_curves.add_curves(page, story)
    objective, mel, attention, gate = drawn
    names_of = {5: "trial 5, the best", 0: "baseline", 1: "trial 1", 2: "trial 2", 4: "trial 4"}
    assert set(objective.curves) == set(names_of.values())
    for number, name in names_of.items():
        run = story.run(number)
        assert objective.curves[name][1][0] == objective_at(number, 20)
        assert mel.curves[name] == run.curves[names.VAL_MEL_LOSS]
        assert attention.curves[name] == run.curves[names.ATTENTION_SCORE]
        assert gate.curves[name] == run.curves[names.GATE_F1]
    for panel in drawn:
        assert panel.faint == {"trial 1", "trial 2", "trial 4"}
        assert panel.dashed == {"baseline"}
        marks = {(mark.kind, mark.name): mark.step for mark in panel.marks}
        assert marks == {
            ("best", "5"): story.best.step, ("pruned", "2"): 60, ("stopped", "4"): 140,
            ("intervention", "1"): 80,
        }  # fmt: skip
    values = {mark.name: mark.value for mark in mel.marks}
    assert values["4"] == values_at(4, 140)[names.VAL_MEL_LOSS]
    (ended,) = tables_of(page)
    assert ended[1:] == [
        ["2", "60", "the search", "worse than others at step 60", "140"],
        ["4", "140", "its stop controller: patience",
         "nothing better for 60 steps, patience is 55", "60"],
    ]  # fmt: skip


def test_many_trials_are_cut_to_the_best_with_baseline_and_best_kept(story: StudyStory) -> None:
    many = [dataclasses.replace(story.results[1], number=number, objective=1.0 / (number + 1))
            for number in range(60)]  # fmt: skip
    changed = dataclasses.replace(story, results=many, best=many[59])
    shown = {item.number for item in report_curves._shown(changed)}
    assert len(shown) == report_curves.MOST_CURVES
    assert {0, 59} <= shown
    assert shown - {0} == set(range(60 - len(shown) + 1, 60))


def test_votes_are_those_of_the_deciding_evaluation(story: StudyStory) -> None:
    page = Page("t")
    report_curves.add_decisions(page, story)
    html = page.render()
    best, stopped = tables_of(page)
    assert "the votes in trial 5 at step 200" in html
    assert "the votes in trial 4 at step 140" in html
    assert "It ends here, cause: patience. Nothing better for 60 steps" in html
    votes = decision(140).votes
    rows = {row[0]: row[1:] for row in stopped[1:]}
    assert len(rows) == len(votes)
    for vote in votes:
        group = (vote.group or "informs only").replace("_", " ")
        assert rows[vote.voter.replace("_", " ")] == [
            group, f"{vote.score:.3f}", f"{vote.confidence:.3f}", vote.reason,
        ]  # fmt: skip
    weights = [abs(float(row[2]) * float(row[3])) for row in best[1:]]
    assert weights == sorted(weights, reverse=True)


def test_votes_of_many_stopped_trials_are_not_endless(story: StudyStory) -> None:
    results = [dataclasses.replace(story.results[4], number=number) for number in range(9)]
    runs = dict.fromkeys(range(9), story.run(4))
    changed = dataclasses.replace(story, results=results, best=results[3], runs=runs)
    page = Page("t")
    report_curves.add_decisions(page, changed)
    assert len(Tables(page.render()).found) == report_curves.MOST_VOTE_TABLES
    assert "The votes of 4 more trials" in page.render()


def test_attention_is_that_of_the_best_trial_and_of_the_baseline(story: StudyStory) -> None:
    panels = report_curves.attention_panels(story)
    for panel, name in zip(panels, names.ATTENTION, strict=False):
        assert name in names.ATTENTION
        assert set(panel.curves) == {"trial 5, the best", "baseline"}
    by_name = {name: panel for panel, (name, *_) in
               zip(panels, report_curves._ATTENTION, strict=True)}  # fmt: skip
    assert set(by_name) == set(names.ATTENTION)
    for name, panel in by_name.items():
        assert panel.curves["trial 5, the best"] == story.run(5).curves[name]
        assert panel.curves["baseline"] == story.run(0).curves[name]
    alone = report_curves.attention_panels(dataclasses.replace(story, best=story.results[0]))
    assert [len(panel.curves) for panel in alone] == [1] * len(panels)


def test_interventions_of_trials_and_of_generations_are_listed(story: StudyStory) -> None:
    events = [
        Record("event", 0.0, 130, name="intervention",
               fields={"issue": "gate_early", "parameter": "gate_weight", "factor": 1.5}),
        Record("event", 0.0, 140, name="intervention_effect",
               fields={"outcome": "reverted", "reason": "the fault is no less",
                       "measured_before": 0.25, "measured": 0.5}),
    ]  # fmt: skip
    changed = dataclasses.replace(story, candidates={"g1c2": RunRecord.of(events)})
    page = Page("t")
    report_curves.add_interventions(page, changed)
    (table,) = tables_of(page)
    assert table[1:] == [
        ["trial 1", "80", "recovery", "explosion", "went back to <a> checkpoint", "helped",
         "4.250", "1.500"],
        ["g1c2", "130", "quality controller", "gate early", "gate_weight x 1.5",
         "no effect, undone", "0.250", "0.500"],
    ]  # fmt: skip


def test_the_tree_has_a_box_per_candidate_and_a_bold_line_to_what_was_gone_on_with(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = story.tree
    assert tree is not None

    def draw(part: Any, *, last: bool) -> tuple[list[str], list[tuple[float, float]]]:
        (axes,) = figure_of(
            monkeypatch, report_generations,
            lambda: report_generations.draw_tree(tree, part, last=last),
        ).axes  # fmt: skip
        bold = [line for line in axes.lines if line.get_linewidth() > 1.5]
        ends = [(round(line.get_xdata()[-1]), line.get_ydata()[-1]) for line in bold]
        return [text.get_text() for text in axes.texts], ends

    texts, bold = draw(tree.generations, last=True)
    assert texts == [
        "trial 5\nup to step 120", "generation 1: to step 150", "unchanged\n0.5780",
        "learning rate × 0.5\n0.5580  +3.3 σ",
        "dropout × 1.25\nguided attention weight × 0.8\n0.5930  -2.5 σ", "weight decay × 2\nfailed",
        "generation 2: to step 180", "unchanged\n0.5580", "learning rate × 0.5\n0.5580  +0.0 σ",
        "dropout × 1.25\nguided attention weight × 0.8\n0.5730  -2.5 σ", "weight decay × 2\nfailed",
        "whole run: 0.2832\nkept",
    ]  # fmt: skip
    assert bold == [(1, 1.0), (2, 0.0), (3, 0.0)]  # learning rate, unchanged, whole run
    later, _ = draw(tree.generations[1:], last=False)
    assert later[0] == "g1c1\nat step 150"
    assert not any("whole run" in text for text in later)


def test_the_table_of_generations_says_what_was_accepted_and_why(
    story: StudyStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = captured(monkeypatch, report_generations)
    monkeypatch.setattr(report_generations, "draw_tree", lambda *_, **__: b"")
    page, tree = Page("t"), story.tree
    assert tree is not None
    report_generations.add_generations(page, tree, story.best.curve)
    (table,) = tables_of(page)
    rows = [row[3:] for row in table[1:]]
    assert rows[:4] == [
        ["g1c0", "unchanged", "0.5780", "–", "", "unchanged", ""],
        ["g1c1", "learning rate × 0.5", "0.5580", "+3.3", "yes", "learning rate × 0.5", "reason 1"],
        ["g1c2", "dropout × 1.25, guided attention weight × 0.8", "0.5930", "-2.5", "",
         "dropout × 1.25, guided attention weight × 0.8", ""],
        ["g1c3", "weight decay × 2", "–", "–", "", "–", "its trainer <failed>"],
    ]  # fmt: skip
    assert [row[2] for row in table[1:]] == ["trunk"] * 4 + ["g1c1"] * 4
    assert "With the changes a whole run reaches 0.2832." in page.render()
    (panel,) = drawn
    steps, values = panel.curves["gone on with"]
    first, second = tree.generations
    expected = {**first.candidates[1].curve, **second.candidates[0].curve}
    assert dict(zip(steps, values, strict=True)) == expected
    whole = panel.curves["trial 5"]
    assert list(whole[0]) == [step for step in story.best.curve if step >= 120]
    accepted = [mark.name for mark in panel.marks if mark.kind == "accepted"]
    assert accepted == ["g1c1", "g2c0"]
    assert len(panel.marks) == 6


def test_generations_are_drawn_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[list[int], bool]] = []

    def draw(tree: Any, part: Any, *, last: bool) -> bytes:
        parts.append(([generation.number for generation in part], last))
        return b""

    captured(monkeypatch, report_generations)
    monkeypatch.setattr(report_generations, "draw_tree", draw)
    tree = make_story(tmp_path, generations=4).tree
    assert tree is not None
    report_generations.add_generations(Page("t"), tree, {})
    assert parts == [([1, 2, 3], False), ([4], True)]


def test_a_loop_that_made_no_generation_is_told_of(story: StudyStory) -> None:
    assert story.tree is not None
    tree = dataclasses.replace(story.tree, generations=(), objective=None, kept=False,
                               verdict="the unchanged run failed")  # fmt: skip
    page = Page("t")
    report_generations.add_generations(page, tree, {})
    assert "The unchanged run failed." in page.render()
    assert "<img" not in page.render()
    assert report_figures.story_steps_of_generations(dataclasses.replace(story, tree=tree)) == 0


def test_the_tables_of_trials_hold_how_they_went_and_what_they_ran_with(story: StudyStory) -> None:
    page = Page("t")
    tuning_report._add_trials(page, story)
    went, ran = tables_of(page)
    assert [row[0] for row in went[1:]] == [row[0] for row in ran[1:]] == list("541023")
    best = values_at(5, STEPS)
    assert went[1][1:] == [
        "search", "complete", f"{story.best.objective:.3f}", "200", "200",
        *(f"{best[name]:.3f}" for name in (names.VAL_MEL_LOSS, names.ATTENTION_SCORE,
                                           names.GATE_F1)),
        "",
    ]  # fmt: skip
    assert went[-1][2] == "failed"
    assert went[-1][-1] == "the trainer ended with exit code 1"
    assert ran[1][2:] == ["3.162e-05", "0.4", "32", "null"]


def test_equal_data_makes_equal_pictures(story: StudyStory) -> None:
    tree = story.tree
    assert tree is not None
    for draw in (
        lambda: report_figures.progress(story),
        lambda: report_generations.draw_tree(tree, tree.generations, last=True),
    ):
        assert draw() == draw()
