"""The evaluate stage: unseen sentences in, scorecard, samples and a page to listen to out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import InputEmptyError
from kamerton.core.files import (
    output_directory,
    read_json,
    require_apart,
    require_new,
    sha256_file,
    write_json,
    write_jsonl,
    write_text,
)
from kamerton.core.progress import Progress, silent
from kamerton.model import DESCRIPTION_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from kamerton.config.schema import Params
    from kamerton.data.manifest import Dataset, Row
    from kamerton.data.transcription import Recogniser
    from kamerton.evaluation.gates import Champion, Gate
    from kamerton.evaluation.scorecard import Scorecard
    from kamerton.evaluation.speaking import Sentence, SpeakingVoice, Take


@dataclass(frozen=True, slots=True)
class EvaluateReport:
    """What the evaluation came to; ``gates`` are those the promotion will hold it against."""

    scorecard: Scorecard
    gates: tuple[Gate, ...]
    note: str

    @property
    def partial(self) -> bool:
        """Never: sentences that could not be measured lower the coverage, which is gated."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat numbers; metrics without a value are left out."""
        card = self.scorecard
        found = {name: score.value for name, score in card.metrics.items()}
        ceilings = {f"{name}_ceiling": score.ceiling for name, score in card.metrics.items()}
        known = {name: value for name, value in {**found, **ceilings}.items() if value is not None}
        original = card.metrics["wer"].original
        if original is not None:
            known["wer_original"] = original
        attention = {f"attention_{name}": float(value) for name, value in card.attention.items()}
        return {"items": float(card.items), **known, **attention}

    def summary(self) -> list[tuple[str, str]]:
        """Lines for the terminal."""
        card, attention = self.scorecard, self.scorecard.attention
        wer = card.metrics["wer"]
        failed = [gate.name for gate in self.gates if not gate.passed]
        lines = [
            ("test sentences", str(card.items)),
            ("aligned", f"{attention['aligned_share']:.1%}"),
            *(
                (name, f"{attention[f'{name}_median']:.2f}, worst {attention[f'{name}_worst']:.2f}")
                for name in ("diagonality", "coverage", "focus")
            ),
            ("word error rate", _against(wer.value, wer.ceiling, percent=True)),
            ("  on the recordings", _value(wer.original, percent=True)),
        ]
        for name in ("mcd_dtw", "stoi_dtw", "estoi_dtw", "pesq_wb_dtw"):
            score = card.metrics[name]
            lines.append((name, _against(score.value, score.ceiling)))
        lines.append(("gates", f"failed: {', '.join(failed)}" if failed else "all passed"))
        return lines


def evaluate(
    dataset: Path,
    model: Path,
    evaluation: Path,
    report: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
) -> EvaluateReport:
    """Let the voice read the test split freely, and measure what is heard.

    Args:
        dataset: Dataset folder.
        model: Folder of the exported voice.
        evaluation: Folder to write: metrics.json, utterances.jsonl and samples/.
        report: HTML page to write.
        params: Sections evaluate, transcribe, promote and tracking.
        force: Replace outputs that exist.
        on_progress: Told of the work done.

    Raises:
        InputMissingError: the dataset, the model or the recogniser is not there.
        InputEmptyError: the dataset has no test sentence.
    """
    from kamerton.data.manifest import Dataset
    from kamerton.evaluation.champion import REMEASURED_FOLDER
    from kamerton.evaluation.gates import absolute_gates, champion_gates
    from kamerton.evaluation.report import choose_takes, render_report
    from kamerton.model.voice import Voice

    for output in (evaluation, report):
        require_new(output, force=force)
        require_apart(output, dataset, model)
    data = Dataset.open(dataset)
    rows = _test_rows(data, dataset, params.evaluate.max_items)
    voice: SpeakingVoice = Voice.load(model)
    test = _TestSet.load(data, rows, voice.description.text.language, params)
    card, takes = test.measure(model, voice, on_progress)
    champion, again, note = _champion(card, test, params, on_progress)
    gates = absolute_gates(card, params.promote)
    if champion is not None:
        gates += champion_gates(card, _as_rows(takes), champion, params.promote)
    shown = choose_takes(takes, params.evaluate.report_items)

    page = render_report(
        card,
        takes,
        gates,
        shown,
        audio=voice.description.audio,
        champion=champion.scorecard if champion else None,
        champion_note=note,
    )
    with output_directory(evaluation, force=force) as folder:
        _write_numbers(folder, card, _as_rows(takes))
        _write_samples(folder, [one for group in shown.values() for one in group])
        if champion is not None and again:
            _write_numbers(folder / REMEASURED_FOLDER, champion.scorecard, champion.utterances)
    write_text(report, page)
    return EvaluateReport(card, tuple(gates), note)


def _test_rows(data: Dataset, path: Path, limit: int) -> list[Row]:
    rows = sorted(data.rows("test"), key=lambda row: row.id)[:limit]
    if not rows:
        raise InputEmptyError(
            path, wanted="test sentence", hint="add recordings, or raise dataset.test_fraction"
        )
    return rows


@dataclass(frozen=True, slots=True)
class _TestSet:
    """What every voice is measured on, and by."""

    sentences: Sequence[Sentence]
    sha256: str
    dataset_sha256: str
    recogniser: Recogniser
    params: Params

    @classmethod
    def load(cls, data: Dataset, rows: Sequence[Row], language: str, params: Params) -> _TestSet:
        from kamerton.data.transcription import load_recogniser
        from kamerton.evaluation.scorecard import eval_set_hash
        from kamerton.evaluation.speaking import Sentence

        several = len({row.speaker for row in data.rows()}) > 1
        return cls(
            [
                Sentence(row.id, row.text, *data.audio(row), row.speaker if several else None)
                for row in rows
            ],
            eval_set_hash([(row.id, row.text, row.audio_sha256) for row in rows]),
            str(data.card["content_sha256"]),
            load_recogniser(params.transcribe, language),
            params,
        )

    def measure(
        self, model: Path, voice: SpeakingVoice, on_progress: Progress
    ) -> tuple[Scorecard, list[Take]]:
        """Let a voice read the sentences, and score what is heard."""
        from kamerton.evaluation.scorecard import (
            Scorecard,
            attention_block,
            half_wrong_share,
            score_utterances,
        )
        from kamerton.evaluation.speaking import read_sentences
        from kamerton.metrics.statistics import Bootstrap

        section = self.params.evaluate
        takes = read_sentences(
            self.sentences,
            voice,
            self.recogniser,
            iterations=section.griffin_lim_iterations,
            seed=section.seed,
            on_progress=on_progress,
        )
        bootstrap = Bootstrap(section.bootstrap_samples, section.confidence_level, section.seed)
        scores = [take.scores for take in takes]
        metrics, coverage, plain = score_utterances(scores, bootstrap)
        card = Scorecard(
            items=len(takes),
            eval_set_sha256=self.sha256,
            dataset_sha256=self.dataset_sha256,
            model_sha256=sha256_file(model / WEIGHTS_FILE),
            definitions=_definitions(self.params),
            bootstrap=asdict(bootstrap),
            metrics=metrics,
            coverage=coverage,
            copy_synthesis=plain,
            attention=attention_block(scores),
            half_wrong_share=half_wrong_share(scores),
            training=_training(model),
        )
        return card, takes


def _definitions(params: Params) -> dict[str, str]:
    """Everything that a number depends on beside the voice and the test set."""
    from kamerton.data.transcription import find_model
    from kamerton.evaluation.measure import DEFINITIONS
    from kamerton.metrics import intelligibility, statistics

    section = params.transcribe
    heard = (
        f"{section.backend} {find_model(section).identity}, beam {section.beam_size}, "
        f"temperatures {', '.join(map(str, section.temperatures))}, "
        "language given"
    )
    return {
        **DEFINITIONS,
        "wer": f"{intelligibility.WER_DEFINITION}; {intelligibility.SCORING_DEFINITION}",
        "cer": f"{intelligibility.CER_DEFINITION}; {intelligibility.SCORING_DEFINITION}",
        "recogniser": heard,
        "vocoder": f"griffin_lim/1: {params.evaluate.griffin_lim_iterations} iterations",
        "bootstrap": statistics.BOOTSTRAP_DEFINITION,
    }


def _training(model: Path) -> dict[str, Any]:
    """The single values of what the model says of its training."""
    said = read_json(model / DESCRIPTION_FILE, produced_by="train").get("training", {})
    return {name: value for name, value in said.items() if not isinstance(value, (dict, list))}


def _champion(
    card: Scorecard, test: _TestSet, params: Params, on_progress: Progress
) -> tuple[Champion | None, bool, str]:
    """The champion to compare with, whether it was measured anew, and a sentence about it."""
    from kamerton.evaluation.champion import champion_beside
    from kamerton.evaluation.gates import Champion
    from kamerton.model.voice import Voice
    from kamerton.tracking.model_registry import ModelRegistry

    if params.tracking.mlflow_uri is None:
        return None, False, "There is no champion to compare with: tracking.mlflow_uri is null."

    def measure(folder: Path, version: str) -> Champion:
        on_progress(1, 1, "the champion reads the same sentences")
        scores, takes = test.measure(folder, Voice.load(folder), silent)
        return Champion(version, scores, _as_rows(takes))

    return champion_beside(card, ModelRegistry.of(params.tracking, params.promote), measure)


def _as_rows(takes: Sequence[Take]) -> list[dict[str, Any]]:
    return [take.scores.as_dict() for take in takes]


def _write_numbers(folder: Path, card: Scorecard, utterances: Sequence[Mapping[str, Any]]) -> None:
    from kamerton.evaluation.scorecard import METRICS_FILE, UTTERANCES_FILE

    write_json(folder / METRICS_FILE, card.as_dict())
    write_jsonl(folder / UTTERANCES_FILE, utterances)


def _write_samples(folder: Path, shown: Sequence[Take]) -> None:
    from kamerton.audio.files import write_flac
    from kamerton.evaluation.scorecard import SAMPLES_FOLDER

    (folder / SAMPLES_FOLDER).mkdir()
    for take in shown:
        for kind, wave in take.sounds.playable().items():
            path = folder / SAMPLES_FOLDER / f"{take.scores.id}.{kind}.flac"
            write_flac(path, wave, take.sounds.rate_hz)


def _against(value: float | None, ceiling: float | None, *, percent: bool = False) -> str:
    return f"{_value(value, percent=percent)} (copy-synthesis {_value(ceiling, percent=percent)})"


def _value(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1%}" if percent else f"{value:.2f}"
