"""The page on which a person hears and sees what the scorecard says in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kamerton.audio.mel import log_mel
from kamerton.config.schema import AudioParams
from kamerton.evaluation.gates import Gate
from kamerton.evaluation.measure import UtteranceScores
from kamerton.evaluation.scorecard import Score, Scorecard
from kamerton.evaluation.speaking import Take
from kamerton.metrics.intelligibility import compare_words
from kamerton.metrics.measurement import Measurement
from kamerton.report.figures import ACCENT, WARM, draw_matrix, new_figure, to_png
from kamerton.report.page import Page

NAMES: dict[str, str] = {
    "wer": "word error rate",
    "cer": "character error rate",
    "mcd_dtw": "mel-cepstral distortion, dB",
    "dur_ratio": "length against the recording",
    "stoi_dtw": "STOI, time-warped",
    "estoi_dtw": "extended STOI, time-warped",
    "pesq_wb_dtw": "PESQ wide-band, time-warped",
    "stoi": "STOI",
    "estoi": "extended STOI",
    "pesq_wb": "PESQ wide-band",
}
_PLOTTED = ("mcd_dtw", "estoi_dtw", "dur_ratio")
_WORST_SHARE, _BEST_SHARE = 0.5, 0.25  # of the sentences shown; the rest is a spread


def choose_takes(takes: Sequence[Take], count: int) -> dict[str, list[Take]]:
    """The sentences to show: the worst, the best, and some evenly spread between them.

    The order is by word errors, then by distortion, then by id, so that it never depends on luck.
    """
    ordered = sorted(takes, key=lambda take: _badness(take.scores), reverse=True)
    count = min(count, len(ordered))
    worst = max(1, round(count * _WORST_SHARE))
    best = min(count - worst, round(count * _BEST_SHARE))
    between = count - worst - best
    middle = ordered[worst : len(ordered) - best]
    spread = [middle[(2 * i + 1) * len(middle) // (2 * between)] for i in range(between)]
    groups = {
        "Worst": ordered[:worst],
        "Best": ordered[len(ordered) - best :][::-1],
        "Between them": spread,
    }
    return {title: group for title, group in groups.items() if group}


def render_report(
    card: Scorecard,
    takes: Sequence[Take],
    gates: Sequence[Gate],
    shown: Mapping[str, Sequence[Take]],
    *,
    audio: AudioParams,
    champion: Scorecard | None,
    champion_note: str,
) -> str:
    """The whole page as HTML; equal input gives equal bytes."""
    page = Page("Evaluation", f"{card.items} test sentences the voice has never seen, read freely")
    _verdict(page, gates, champion_note)
    _facts(page, card)
    _scores(page, card, champion)
    _distributions(page, takes)
    for title, group in shown.items():
        page.section(f"{title} sentences" if title != "Between them" else title)
        for take in group:
            _take(page, take, audio)
    _failures(page, card, takes)
    _lineage(page, card)
    return page.render()


def _badness(scores: UtteranceScores) -> tuple[float, float, str]:
    distortion = scores.synthesis["mcd_dtw"].value
    return (scores.wer, float("inf") if distortion is None else distortion, scores.id)


def _verdict(page: Page, gates: Sequence[Gate], champion_note: str) -> None:
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        count = f"{len(failed)} of {len(gates)} gates" if len(failed) > 1 else "One gate"
        page.verdict(f"{count} not passed.", ok=False)
    else:
        page.verdict(f"All {len(gates)} gates passed.", ok=True)
    for gate in failed:
        page.text(f"Failed: {gate.reason}.")
    page.text(champion_note)
    rows = [[gate.reason, "passed" if gate.passed else "failed"] for gate in gates]
    page.table(["gate", ""], rows)


def _facts(page: Page, card: Scorecard) -> None:
    attention = card.attention
    wer, distortion = card.metrics["wer"], card.metrics["mcd_dtw"]
    page.facts(
        {
            "word error rate": _percent(wer.value),
            "of copy-synthesis": _percent(wer.ceiling),
            "of the recordings": _percent(wer.original),
            "mel-cepstral distortion": _number(distortion.value, " dB"),
            "aligned sentences": _percent(attention["aligned_share"]),
            "diagonality, median and worst": f"{attention['diagonality_median']:.2f}, "
            f"{attention['diagonality_worst']:.2f}",
            "coverage, median and worst": f"{attention['coverage_median']:.2f}, "
            f"{attention['coverage_worst']:.2f}",
            "focus, median and worst": f"{attention['focus_median']:.2f}, "
            f"{attention['focus_worst']:.2f}",
            "runaways": f"{attention['runaways']:.0f}",
        }
    )


def _scores(page: Page, card: Scorecard, champion: Scorecard | None) -> None:
    page.section(
        "Scores",
        "The ceiling is copy-synthesis: the recording through the same mel spectrogram and "
        "vocoder, the best that any acoustic model could do here.",
    )
    rows: list[list[Any]] = []
    for name, score in card.metrics.items():
        other = champion.metrics.get(name) if champion else None
        rows.append(
            [
                NAMES.get(name, name),
                score.value,
                _interval(score),
                other.value if other else None,
                _difference(score, other),
                score.ceiling,
                score.original,
                score.n,
            ]
        )
    level = f"{card.bootstrap['level']:.0%} interval"
    headers = ["", "voice", level, "champion", "change", "ceiling", "recordings", "sentences"]
    page.table(headers, rows)
    plain = [[NAMES[name], value] for name, value in card.copy_synthesis.items()]
    page.table(["copy-synthesis, compared moment by moment", ""], plain)


def _distributions(page: Page, takes: Sequence[Take]) -> None:
    page.section("Distributions", "One dot is one sentence; copy-synthesis beside the voice.")
    figure, axes = new_figure(9, 2.8, columns=len(_PLOTTED))
    for ax, name in zip(axes, _PLOTTED, strict=True):
        voice = _values(take.scores.synthesis[name] for take in takes)
        copy = _values(take.scores.copy_synthesis[name] for take in takes)
        for place, (values, colour) in enumerate(((copy, WARM), (voice, ACCENT))):
            # A fixed spread instead of a random one: the page must not differ between runs.
            offsets = [place + 0.3 * ((7 * i) % 11 - 5) / 11 for i in range(len(values))]
            ax.scatter(offsets, values, s=9, color=colour, alpha=0.8, linewidths=0)
        ax.set_xticks([0, 1], ["copy", "voice"])
        ax.set_xlim(-0.5, 1.5)
        ax.set_title(NAMES[name], fontsize=9)
    page.figure(to_png(figure), "copy-synthesis and the voice, sentence by sentence")


def _take(page: Page, take: Take, audio: AudioParams) -> None:
    scores, sounds = take.scores, take.sounds
    page.text(
        f"{scores.id}: word errors {scores.errors['synthesis'].errors} of "
        f"{scores.errors['synthesis'].words}, distortion "
        f"{_number(scores.synthesis['mcd_dtw'].value, ' dB')} (copy "
        f"{_number(scores.copy_synthesis['mcd_dtw'].value, ' dB')}), diagonality "
        f"{scores.attention.diagonality:.2f}, coverage {scores.attention.coverage:.2f}, focus "
        f"{scores.attention.focus:.2f}{'' if scores.stopped else '; it did not stop by itself'}"
    )
    page.marked("said, and as the voice was heard:", _marks(scores.text, scores.heard.synthesis))
    players = {"recording": "recording", "copy": "copy-synthesis", "voice": "voice"}
    waves = sounds.playable()
    page.audio([(label, waves[kind], sounds.rate_hz) for kind, label in players.items()])
    figure, axes = new_figure(9, 2.2, columns=3)
    draw_matrix(axes[0], log_mel(sounds.reference, audio), "frame", "mel band", "recording")
    draw_matrix(axes[1], take.mel, "frame", "", "voice")
    draw_matrix(axes[2], take.attention.T, "decoder step", "symbol", "attention")
    page.figure(to_png(figure, dots_per_inch=80), f"{scores.id}: mel spectrograms and attention")


def _marks(said: str, heard: str) -> list[tuple[str, Literal["same", "gone", "new"]]]:
    marks: list[tuple[str, Literal["same", "gone", "new"]]] = []
    for change in compare_words(said, heard):
        if change.kind == "equal":
            marks.append((change.said, "same"))
            continue
        if change.said:
            marks.append((change.said, "gone"))
        if change.heard:
            marks.append((change.heard, "new"))
    return marks


def _failures(page: Page, card: Scorecard, takes: Sequence[Take]) -> None:
    page.section("Coverage and failures", "Where a metric gave no number, and why.")
    coverage = [[NAMES[name], f"{share:.1%}"] for name, share in card.coverage.items()]
    page.table(["metric", "sentences measured"], coverage)
    rows = []
    for take in takes:
        for side, table in (
            ("voice", take.scores.synthesis),
            ("copy-synthesis", take.scores.copy_synthesis),
        ):
            rows += [
                [take.scores.id, side, NAMES[name], str(found.status), found.reason]
                for name, found in table.items()
                if not found.ok
            ]
    if rows:
        page.table(["sentence", "of", "metric", "status", "reason"], rows[:100])
    if len(rows) > 100:
        page.text(f"{len(rows) - 100} more are in utterances.jsonl.")
    share = _percent(card.half_wrong_share)
    page.text(f"Sentences with more than half of the words wrong: {share}.")


def _lineage(page: Page, card: Scorecard) -> None:
    page.section("Where the numbers come from")
    lineage = {
        "weights (SHA-256)": card.model_sha256,
        "dataset (SHA-256)": card.dataset_sha256,
        "test set (SHA-256)": card.eval_set_sha256,
        "definitions (SHA-256)": card.definitions_sha256,
        **{f"training: {name}": value for name, value in sorted(card.training.items())},
        **{f"bootstrap: {name}": value for name, value in sorted(card.bootstrap.items())},
    }
    page.table(["", ""], [[name, str(value)] for name, value in lineage.items()])
    definitions = [[name, text] for name, text in sorted(card.definitions.items())]
    page.table(["metric", "definition"], definitions)


def _values(measurements: Any) -> list[float]:
    found: list[Measurement] = list(measurements)
    return [one.value for one in found if one.value is not None]


def _interval(score: Score) -> str | None:
    if score.low is None or score.high is None:
        return None
    return f"{score.low:.3f} to {score.high:.3f}"


def _difference(score: Score, other: Score | None) -> str | None:
    if other is None or score.value is None or other.value is None:
        return None
    return f"{score.value - other.value:+.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.2f}{unit}"
