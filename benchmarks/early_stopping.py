"""What the stop decision saves and how often it keeps the right checkpoint, against other rules.

    python -m benchmarks.early_stopping [--curves 500] [--real FOLDER] [--figure FILE.png]

Curves are the seeded synthetic ones of `curve_families` (seeds from 1000; the rules were tuned on
others) and, where the folder is there, real validation curves. A rule is right on a curve where
the checkpoint it keeps is within 2 % of the best of the whole run, as a share of the run's range
and, on synthetic curves, without the noise. Saved is the share of the plan that is not trained;
intervals are bootstraps of 95 % over curves. Times are processor time of the rule per evaluation
that it saw, and the one column that another run does not repeat to the digit.

The oracle stops at the first checkpoint within 1 %. The median rule sees twenty finished runs of
the same family (real: the others of the same task); it compares runs, and so ends good curves of
bad runs. Ablations leave out one part of ours each, on the first curves.

Ends with 1 where a bar is missed: right as often as the best fixed share of patience that is right
in 97 %, at 1.3 times its saving; on real speech recognition right in 95 % and 0.30 saved.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stop_rules
from benchmarks.curve_families import (
    FAMILIES,
    FIRST_SEED,
    Curve,
    make_curve,
    population,
    real_curves,
    synthetic,
)
from benchmarks.stop_figure import draw
from benchmarks.stop_scoring import (
    TOLERANCE,
    Outcome,
    Score,
    best_patience,
    difference,
    play,
    ratio,
    score,
)
from kamerton import stopping
from kamerton.config.stopping_section import EarlyStoppingParams

OURS = "ours"
TOLD = "ours, told of the schedule"
SHARES = (10, 15, 20, 25, 30, 35, 40)  # percent of the plan
LEAST_RIGHT = 0.97
LEAST_GAIN = 1.3
SPEECH_RIGHT = 0.95
SPEECH_SAVED = 0.30
PEERS = 20
PROGRESS_SECONDS = 5.0
REAL = Path(__file__).resolve().parents[2] / "shared" / "curves"
ABLATIONS: dict[str, dict[str, Any]] = {
    "voter cusum": {"silent_voters": ("cusum",)},
    "voter mann_kendall": {"silent_voters": ("mann_kendall",)},
    "voter forecast": {"silent_voters": ("forecast",)},
    "voter attention_health": {"silent_voters": ("attention_health",)},
    "voter gate_health": {"silent_voters": ("gate_health",)},
    "weight of statistics": {"ensemble_weights.statistical_consensus": 0.0},
    "weight of the forecast": {"ensemble_weights.bayesian_prediction": 0.0},
    "weight of attention": {"ensemble_weights.attention_analysis": 0.0},
    "evidence (gain 0)": {"evidence_gain": 0.0},
    "stages and evidence": {"adaptive_patience": False},
    "attention as a signal": {"attention_monitoring.enabled": False},
    "rule patience": {"rules.patience": False},
    "rule forecast": {"rules.forecast": False},
    "rule divergence": {"rules.divergence": False},
    "rule collapse": {"rules.collapse": False},
    "rule overfitting": {"rules.overfitting": False},
    "rule not_finite": {"rules.not_finite": False},
    "guard before alignment": {"rules.guard": False},
}

Results = dict[str, list[Outcome]]  # by method, curves in order


def ours(changes: Mapping[str, Any] | None = None, *, told: bool = False) -> stop_rules.Rule:
    """The stop decision with some parameters changed; ``told`` where it knows the schedule."""
    params = EarlyStoppingParams.model_validate(_nested(changes or {}))

    def rule(curve: Curve) -> tuple[int, int]:
        found = stopping.replay(
            curve.observed.tolist(),
            curve.plan,
            None if curve.attention is None else curve.attention.tolist(),
            params=params,
            schedule_drops=[drop + 1 for drop in curve.drops] if told else (),
        )
        last = curve.plan - 1 if found.stop_index is None else found.stop_index
        return last, found.checkpoint_index

    return rule


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dotted, value in changes.items():
        section, _, key = dotted.rpartition(".")
        (found.setdefault(section, {}) if section else found)[key] = value
    return found


@cache
def methods() -> dict[str, stop_rules.Rule]:
    """Rules of the synthetic table by name, in its order."""
    found: dict[str, stop_rules.Rule] = {
        f"patience {n} epochs": stop_rules.patience(epochs=n) for n in (3, 10)
    }
    found |= {_patience(share): stop_rules.patience(share=share / 100) for share in SHARES}

    def peers(curve: Curve) -> Sequence[Curve]:
        return population(curve, PEERS)

    found["median rule"] = stop_rules.median(peers, startup=0.0)
    startup = stop_rules.STARTUP_SHARE
    found[f"median rule from {startup:.0%}"] = stop_rules.median(peers, startup=startup)
    found["specification, threshold .6"] = stop_rules.specification(threshold=0.6)
    found["the same, .35 and patience 20 %"] = stop_rules.specification(
        threshold=0.35, patience_share=0.2
    )
    return found | {OURS: ours(), TOLD: ours(told=True), "oracle": stop_rules.oracle(0.01)}


def _patience(share: int) -> str:
    return f"patience {share} % of plan"


@cache
def ablations() -> dict[str, stop_rules.Rule]:
    """Ours without a part each."""
    return {name: ours(changes) for name, changes in ABLATIONS.items()}


# Work of the processes


def play_synthetic(job: tuple[str, int, bool]) -> dict[str, Outcome]:
    """All rules on one curve, with the ablations where asked."""
    family, seed, ablated = job
    curve = make_curve(family, seed)
    rules = methods() | (ablations() if ablated else {})
    if not curve.drops:
        rules = {name: rule for name, rule in rules.items() if name != TOLD}
    played = {name: play(rule, curve) for name, rule in rules.items()}
    return played | ({TOLD: played[OURS]} if not curve.drops else {})


def play_real(job: tuple[Curve, Sequence[Curve], bool]) -> dict[str, Outcome]:
    """All rules on one real curve; ``peers`` are the other runs of its task."""
    curve, peers, ablated = job
    rules = methods() | (ablations() if ablated else {})
    for name, startup in (("median rule", 0.0), ("median rule from 20%", stop_rules.STARTUP_SHARE)):
        rules[name] = stop_rules.median(lambda _: peers, startup=startup)
    return {name: play(rule, curve) for name, rule in rules.items() if name != TOLD}


def play_all(
    work: Callable[[Any], dict[str, Outcome]], jobs: Sequence[Any], what: str, processes: int
) -> Results:
    """Every job's outcomes, in the order of the jobs."""
    found: Results = {}
    began = shown = time.monotonic()
    with ExitStack() as stack:
        rows: Iterable[dict[str, Outcome]] = map(work, jobs)
        if processes > 1:
            context = multiprocessing.get_context("fork")
            rows = stack.enter_context(context.Pool(processes)).imap(work, jobs, chunksize=4)
        for done, row in enumerate(rows, start=1):
            for name, outcome in row.items():
                found.setdefault(name, []).append(outcome)
            if time.monotonic() - shown > PROGRESS_SECONDS or done == len(jobs):
                shown = time.monotonic()
                left = (shown - began) / done * (len(jobs) - done)
                say(f"{what}: {done} of {len(jobs)} curves, about {left:.0f} s to go")
    return found


# What is printed


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def judge(holds: bool, text: str) -> bool:
    """Print one verdict."""
    print(f"{'PASS' if holds else 'MISS'}  {text}", flush=True)
    return holds


def show_table(title: str, results: Results, names: Sequence[str]) -> dict[str, Score]:
    """One row per rule; returns what they show."""
    scores = {name: score(results[name]) for name in names if name in results}
    print(f"\n{title}")
    print(f"{'':<36}{'saved':>7}{'':14}{'right':>8}{'':14}{'regret p95':>11}{'CPU ms':>9}")
    for name, one in scores.items():
        print(
            f"{name:<36}{one.saved:>7.3f} {_within(one.saved_interval)}"
            f"{one.right:>8.3f} {_within(one.right_interval)}"
            f"{one.regret_p95:>10.3f}{one.cpu_ms:>9.3f}"
        )
    return scores


def _within(interval: tuple[float, float], *, points: bool = False) -> str:
    low, high = interval
    return f"[{100 * low:+.2f}, {100 * high:+.2f}]" if points else f"[{low:.3f}, {high:.3f}]"


def _short(name: str) -> str:
    return name.replace(", told of the schedule", ", told").replace(" of plan", "")


def show_families(
    jobs: Sequence[tuple[str, int, bool]], results: Results, names: Sequence[str]
) -> None:
    """Saved and right of a few rules in each family."""
    print("\nby family: saved / right")
    print(f"{'':<16}" + "".join(f"{_short(name):>18}" for name in names))
    for family in FAMILIES:
        at = [index for index, job in enumerate(jobs) if job[0] == family]
        cells = []
        for name in names:
            one = [results[name][index] for index in at]
            right = np.mean([each.regret <= TOLERANCE for each in one])
            cells.append(f"{np.mean([each.saved for each in one]):.3f} / {right:.3f}")
        print(f"{family:<16}" + "".join(f"{cell:>18}" for cell in cells))


def show_ablations(title: str, results: Results) -> None:
    """What each part brings: ours less ours without it, paired by curve."""
    print(f"\n{title}: what each part brings (points of 100: saved, right)")
    for name in ABLATIONS:
        without = results[name]
        whole = results[OURS][: len(without)]
        other = sum(a.last != b.last for a, b in zip(whole, without, strict=True))
        saved, saved_in = difference(*(np.array([o.saved for o in r]) for r in (whole, without)))
        right, right_in = difference(
            *(np.array([float(o.regret <= TOLERANCE) for o in r]) for r in (whole, without))
        )
        verdict = _verdict(saved_in, right_in)
        print(
            f"{name:<26}{100 * saved:>+7.2f} {_within(saved_in, points=True):<16}"
            f"{100 * right:>+7.2f} {_within(right_in, points=True):<16}"
            f"   other stop in {other} of {len(without)}: {verdict}"
        )


def _verdict(saved: tuple[float, float], right: tuple[float, float]) -> str:
    """In a word, by whether the intervals lie beside zero."""
    gains = saved[0] > 0 or right[0] > 0
    costs = saved[1] < 0 or right[1] < 0
    if gains and costs:
        return "buys saved with right" if saved[0] > 0 else "buys right with saved"
    return "earns" if gains else "harms" if costs else "earns nothing"


def judge_synthetic(results: Results, scores: Mapping[str, Score]) -> list[bool]:
    """The bars of the synthetic curves."""
    best = best_patience(
        {_patience(share): scores[_patience(share)] for share in SHARES}, LEAST_RIGHT
    )
    if best is None:
        return [judge(False, f"no share of patience is right in {LEAST_RIGHT:.0%}")]
    bar, mine = scores[best], scores[OURS]
    gain, (low, high) = ratio(results[OURS], results[best])
    told, _ = ratio(results[TOLD], results[best])
    print(f"\nthe best fixed share that is right in {LEAST_RIGHT:.0%}: {best}")
    print(f"{TOLD}: right in {scores[TOLD].right:.3f}, {told:.2f} times its saving")
    return [
        judge(mine.right >= bar.right, f"right in {mine.right:.3f} (at least {bar.right:.3f})"),
        judge(
            gain >= LEAST_GAIN,
            f"{gain:.2f} times its saving, [{low:.2f}, {high:.2f}] (at least {LEAST_GAIN:g})",
        ),
    ]


def judge_speech(scores: Mapping[str, Score]) -> list[bool]:
    """The bars of the real speech-recognition curves."""
    mine = scores[OURS]
    (low, high), (least, most) = mine.right_interval, mine.saved_interval
    return [
        judge(
            mine.right >= SPEECH_RIGHT,
            f"real speech: right in {mine.right:.3f}, [{low:.3f}, {high:.3f}] (at least .95)",
        ),
        judge(
            mine.saved >= SPEECH_SAVED,
            f"real speech: saved {mine.saved:.3f}, [{least:.3f}, {most:.3f}] (at least .30)",
        ),
    ]


def run_real(
    folder: Path, processes: int, *, ablated: bool
) -> tuple[dict[str, Results], list[bool], dict[str, Any]]:
    """Tables of the real curves; empty where there are none."""
    files = sorted(folder.glob("*.json.gz"))
    if not files:
        print(f"\nreal curves: none in {folder}; skipped")
        return {}, [], {}
    curves = [curve for file in files for curve in real_curves(file)]
    groups = {"real speech recognition": True, "real, other tasks": False}
    found, held, figures = {}, [], {}
    for title, speech in groups.items():
        chosen = [curve for curve in curves if curve.family.startswith("librispeech") == speech]
        if not chosen:
            continue
        jobs = [
            (one, [o for o in curves if o.family == one.family and o.name != one.name], ablated)
            for one in chosen
        ]
        found[title] = play_all(play_real, jobs, title, processes)
        scores = show_table(f"{title}: {len(chosen)} runs", found[title], list(methods()))
        if ablated:
            show_ablations(title, found[title])
        held += judge_speech(scores) if speech else []
        figures[title] = {name: asdict(one) for name, one in scores.items()}
    return found, held, figures


def main() -> int:
    """All tables; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--curves", type=int, default=2000, help="synthetic ones")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the synthetic ones")
    parser.add_argument("--ablation-curves", type=int, default=150, help="of them, for ablations")
    parser.add_argument("--real", type=Path, default=REAL, help="folder of real curves")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="write saved against right there, as PNG")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    began = time.monotonic()
    jobs = [
        (family, seed, index < given.ablation_curves)
        for index, (family, seed) in enumerate(synthetic(given.curves, given.first_seed))
    ]
    results = play_all(play_synthetic, jobs, "synthetic", given.processes)
    title = (
        f"{len(jobs)} synthetic curves of {len(FAMILIES)} families, seeds from {given.first_seed}"
    )
    scores = show_table(title, results, list(methods()))
    show_families(jobs, results, [_patience(20), _patience(30), OURS, TOLD, "oracle"])
    if given.ablation_curves:
        show_ablations("synthetic", results)
    held = judge_synthetic(results, scores)
    real, real_held, real_figures = run_real(
        given.real, given.processes, ablated=bool(given.ablation_curves)
    )
    everything = {title: scores} | {t: {n: score(o) for n, o in r.items()} for t, r in real.items()}
    if given.figure:
        given.figure.write_bytes(draw(everything, list(methods())))
    if given.json:
        synthetic_figures = {name: asdict(one) for name, one in scores.items()}
        given.json.write_text(
            json.dumps({"synthetic": synthetic_figures, **real_figures}, indent=2)
        )
    print(f"\n{time.monotonic() - began:.0f} s with {given.processes} processes")
    return 0 if all(held + real_held) else 1


if __name__ == "__main__":
    sys.exit(main())
