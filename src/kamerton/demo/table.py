"""What came out of a demo run, in one table."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kamerton.core.files import read_json, read_jsonl
from kamerton.demo.score import score_files

Pairs = list[tuple[str, str]]


def _clips(project: Path) -> Pairs:
    clips = read_jsonl(project / "data/clips/clips.jsonl", produced_by="segment")
    card = read_json(project / "data/dataset/dataset.json", produced_by="dataset")
    dropped = len(clips) - card["clips"]
    # The card counts what any stage refused, the cutting included.
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(card["rejected"].items()))
    splits = ", ".join(f"{name} {split['clips']}" for name, split in card["splits"].items())
    return [
        ("clips", f"{card['clips']} kept, {dropped} dropped" + (f" ({why})" if why else "")),
        ("split", splits),
        ("hours", f"{card['hours']:.2f}"),
    ]


def _truth(project: Path) -> Pairs:
    score = score_files(
        project / "data/truth", project / "data/clips", project / "data/transcripts.jsonl"
    )
    return score.summary()


def _analysis(project: Path) -> Pairs:
    analysis = read_json(project / "data/analysis.json", produced_by="analyze")
    quality = analysis["quality"]
    return [
        ("quality", f"{quality['score']:.2f} ({quality['label']})"),
        ("recommended epochs", str(analysis["recommended_epochs"])),
    ]


def _tuning(project: Path) -> Pairs:
    with (project / "tuning/trials.csv").open(encoding="utf-8", newline="") as file:
        trials = list(csv.DictReader(file))
    finished = [trial for trial in trials if trial.get("objective")]
    best = min(finished, key=lambda trial: float(trial["objective"]))
    chosen = ", ".join(
        f"{name.rpartition('.')[2]} {float(value):.3g}"
        for name, value in best.items()
        if name.startswith(("train.", "audio.", "text.")) and _is_number(value)
    )
    return [
        (
            "best trial",
            f"{best['number']} of {len(trials)}, J {float(best['objective']):.3f}, {chosen}",
        )
    ]


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _score(scores: Mapping[str, Any], name: str, form: str, *, recordings: bool = False) -> str:
    score = scores.get(name) or {}
    value, ceiling = score.get("value"), score.get("ceiling")
    text = "not measured" if value is None else form.format(value)
    if score.get("low") is not None:
        text += f" [{form.format(score['low'])}, {form.format(score['high'])}]"
    if ceiling is not None:
        text += f", copy-synthesis {form.format(ceiling)}"
    if recordings and score.get("original") is not None:
        text += f", recordings {form.format(score['original'])}"
    return text


def _evaluation(project: Path) -> Pairs:
    card = read_json(project / "evaluation/metrics.json", produced_by="evaluate")
    scores, attention = card["metrics"], card["attention"]
    focus = " · ".join(
        f"{name} {attention[f'{name}_median']:.2f} (worst {attention[f'{name}_worst']:.2f})"
        for name in ("diagonality", "coverage", "focus")
    )
    return [
        ("test sentences", f"{card['items']} unseen, free-running"),
        ("attention", f"{focus}; {attention['aligned_share']:.0%} aligned"),
        ("MCD (dtw), dB", _score(scores, "mcd_dtw", "{:.2f}")),
        ("STOI (dtw)", _score(scores, "stoi_dtw", "{:.3f}")),
        ("ESTOI (dtw)", _score(scores, "estoi_dtw", "{:.3f}")),
        ("PESQ wb (dtw)", _score(scores, "pesq_wb_dtw", "{:.2f}")),
        ("WER of synthesis", _score(scores, "wer", "{:.1%}", recordings=True)),
    ]


def _promotion(project: Path) -> Pairs:
    promotion = read_json(project / "promotion.json", produced_by="promote")
    failed = [gate["name"] for gate in promotion["gates"] if not gate["passed"]]
    verdict = promotion["verdict"] + (f": {', '.join(failed)} not met" if failed else "")
    version = promotion["version"]
    named = "none" if version is None else f"{promotion['model_name']} version {version}"
    return [("verdict", verdict), ("model", named)]


def demo_table(project: Path, *, sample: Path | None) -> Pairs:
    """Names and values, in the order of the pipeline; read from what the stages wrote."""
    return [
        *_clips(project),
        *_truth(project),
        *_analysis(project),
        *_tuning(project),
        *_evaluation(project),
        *_promotion(project),
        ("report", str(project / "reports/evaluation.html")),
        ("listen", str(sample) if sample else "no champion yet"),
    ]
