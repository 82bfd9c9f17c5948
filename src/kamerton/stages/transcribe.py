"""Write down what each clip says, with the recogniser's confidence."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.resample import resample
from kamerton.config.schema import Params
from kamerton.core.errors import InputEmptyError
from kamerton.core.files import require_new, write_jsonl
from kamerton.core.progress import Progress, silent
from kamerton.data.filters import judge_recognition, repeated_answers
from kamerton.data.manifest import decode_flac
from kamerton.data.tables import KEPT, REJECTED, Clip, read_clip_file, read_clips
from kamerton.data.transcription import (
    RATE_HZ,
    Recogniser,
    Recognition,
    find_model,
    load_recogniser,
)


@dataclass(frozen=True, slots=True)
class TranscribeReport:
    """How many clips were heard and how many answers are believed."""

    clips: int
    kept: int
    seconds: float
    mean_avg_logprob: float | None
    reasons: dict[str, int]

    @property
    def partial(self) -> bool:
        """Never: a clip that cannot be read is an error, an answer not believed is a verdict."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat figures for the pipeline's metrics."""
        figures = {
            "clips": float(self.clips),
            "kept": float(self.kept),
            "rejected": float(self.clips - self.kept),
            "seconds": round(self.seconds, 3),
        }
        if self.mean_avg_logprob is not None:
            figures["mean_avg_logprob"] = self.mean_avg_logprob
        return figures

    def summary(self) -> list[tuple[str, str]]:
        """What the terminal shows."""
        lines = [
            ("clips heard", f"{self.clips} ({self.seconds / 60:.1f} min)"),
            ("believed", str(self.kept)),
        ]
        lines += [(f"not believed: {name}", str(n)) for name, n in sorted(self.reasons.items())]
        if self.mean_avg_logprob is not None:
            lines.append(("mean log probability", f"{self.mean_avg_logprob:.3f}"))
        return lines


def transcribe(
    clips: Path,
    transcripts: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
    cache: Path | None = None,
) -> TranscribeReport:
    """Transcribe every kept clip of ``clips`` into ``transcripts`` (one JSON object per line).

    Every figure of the recogniser is recorded beside the verdict, so that other limits can be
    tried without listening again.

    Raises:
        InputMissingError, InputCorruptError: the clips are not there, or damaged.
        InputEmptyError: no clip was kept when they were cut.
        ToolMissingError, ParamsError: see ``load_recogniser``.
    """
    del cache
    require_new(transcripts, force=force)
    kept = [clip for clip in read_clips(clips) if clip.status == KEPT]
    if not kept:
        hint = "see the reasons in its clips.jsonl; loosen the section segment, or add recordings"
        raise InputEmptyError(clips, wanted="clip that was kept", hint=hint)
    identity = find_model(params.transcribe).identity
    recogniser = load_recogniser(params.transcribe, params.text.language)
    answers = list(_listen(clips, kept, recogniser, on_progress))
    reasons = _judge(kept, answers, params)
    write_jsonl(
        transcripts,
        [
            _row(clip, answer, why, backend=params.transcribe.backend, model=identity)
            for clip, answer, why in zip(kept, answers, reasons, strict=True)
        ],
    )
    return _report(kept, answers, reasons)


def _listen(
    clips: Path, kept: list[Clip], recogniser: Recogniser, on_progress: Progress
) -> Iterator[Recognition]:
    """Answers in order; progress counts seconds of sound."""
    total = sum(clip.duration_seconds for clip in kept)
    done = 0.0
    for clip in kept:
        on_progress(done, total, clip.source)
        yield from recogniser.transcribe([_sound(clips, clip)])
        done += clip.duration_seconds
    on_progress(total, total)


def _sound(clips: Path, clip: Clip) -> NDArray[np.float32]:
    payload, where = read_clip_file(clips, clip), str(clips / str(clip.file))
    wave, rate_hz = decode_flac(payload, where, written_by="segment")
    return resample(wave, rate_hz, RATE_HZ)


def _judge(kept: list[Clip], answers: list[Recognition], params: Params) -> list[list[str]]:
    """Reasons by clip; runs of one answer are looked for inside each recording."""
    language = params.text.language
    reasons = [judge_recognition(answer, params.transcribe, language) for answer in answers]
    by_source: dict[str, list[int]] = {}
    for position, clip in enumerate(kept):
        by_source.setdefault(clip.source, []).append(position)
    for positions in by_source.values():
        for repeated in repeated_answers([answers[p].text for p in positions]):
            reasons[positions[repeated]].append("repeated_answer")
    return reasons


def _row(
    clip: Clip, answer: Recognition, reasons: list[str], *, backend: str, model: str
) -> dict[str, Any]:
    return {
        "id": clip.id,
        **asdict(answer),
        "backend": backend,
        "model": model,
        "origin": "recognised",
        "status": REJECTED if reasons else KEPT,
        "reasons": reasons,
    }


def _report(
    kept: list[Clip], answers: list[Recognition], reasons: list[list[str]]
) -> TranscribeReport:
    sure = [answer.avg_logprob for answer in answers if answer.avg_logprob is not None]
    return TranscribeReport(
        clips=len(kept),
        kept=sum(not why for why in reasons),
        seconds=sum(clip.duration_seconds for clip in kept),
        mean_avg_logprob=round(float(np.mean(sure)), 5) if sure else None,
        reasons=dict(Counter(name for why in reasons for name in why)),
    )
