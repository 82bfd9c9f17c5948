"""Which clips are fit to train on; every refusal has a reason with a name.

All rules are pure functions of recorded numbers, so they can be run again with other limits
without listening to anything again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kamerton.config.schema import DatasetParams, TranscribeParams
from kamerton.data.transcription import Recognition

# What each reason means, for reports; the keys stand in transcripts.jsonl and rejected.jsonl.
REASONS: Mapping[str, str] = {
    "empty_text": "nothing was recognised",
    "low_logprob": "the recogniser was unsure of the words",
    "repetitive": "the answer compresses too well: it repeats itself",
    "repeated_words": "too few different words",
    "repeated_answer": "the same answer three times in a row: a hallucination",
    "no_speech": "more probably no speech, and unsure",
    "other_language": "another language than text.language was recognised",
    "no_transcript": "there is no transcript",
    "no_clip": "there is a transcript but no clip",
    "no_spoken_text": "nothing that is spoken is left after normalisation",
    "too_short": "shorter than dataset.min_clip_seconds",
    "too_long": "longer than dataset.max_clip_seconds",
    "too_slow": "too few characters per second: words are missing",
    "too_fast": "too many characters per second: words were invented",
    "tempo_outlier": "its tempo is far from the rest of the dataset",
    "same_sound": "the same samples as another clip",
    "same_text_and_length": "the same text and length as another clip",
}

_ANSWERS_IN_A_ROW = 3
_FEWEST_WORDS_TO_JUDGE = 4
_FEWEST_CLIPS_FOR_QUARTILES = 20
_SAME_LENGTH_SHARE = 0.03


def judge_recognition(answer: Recognition, params: TranscribeParams, language: str) -> list[str]:
    """Reasons not to believe one answer, in a fixed order; none when it is believed.

    ``language`` is the one that the recordings should be in.
    """
    words = answer.text.lower().split()
    reasons = [] if words else ["empty_text"]
    if answer.language != language:
        reasons.append("other_language")
    if answer.avg_logprob is not None:
        if answer.avg_logprob < params.min_avg_logprob:
            reasons.append("low_logprob")
        unsure = answer.avg_logprob < params.min_avg_logprob / 2
        if unsure and (answer.no_speech_prob or 0.0) > params.max_no_speech_prob:
            reasons.append("no_speech")
    if (answer.compression_ratio or 0.0) > params.max_compression_ratio:
        reasons.append("repetitive")
    enough = len(words) >= _FEWEST_WORDS_TO_JUDGE
    if enough and len(set(words)) / len(words) < params.min_unique_word_share:
        reasons.append("repeated_words")
    return reasons


def repeated_answers(texts: Sequence[str]) -> set[int]:
    """Positions of answers that stand three or more times in a row; empty ones do not count."""
    repeated: set[int] = set()
    start = 0
    for position in range(1, len(texts) + 1):
        if position < len(texts) and texts[position] == texts[start]:
            continue
        if texts[start] and position - start >= _ANSWERS_IN_A_ROW:
            repeated.update(range(start, position))
        start = position
    return repeated


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the filters of a dataset look at; ``text`` is normalised, the hash is of the samples."""

    id: str
    text: str
    duration_seconds: float
    pcm_sha256: str

    @property
    def characters_per_second(self) -> float:
        """Tempo: characters, spaces included, by second of clip."""
        return len(self.text) / self.duration_seconds if self.duration_seconds > 0 else 0.0


def judge_clip(clip: Candidate, params: DatasetParams) -> list[str]:
    """Reasons that one clip alone gives; none when it may stay."""
    reasons = [] if clip.text else ["no_spoken_text"]
    if clip.duration_seconds < params.min_clip_seconds:
        reasons.append("too_short")
    if clip.duration_seconds > params.max_clip_seconds:
        reasons.append("too_long")
    if clip.text and clip.characters_per_second < params.min_chars_per_second:
        reasons.append("too_slow")
    if clip.characters_per_second > params.max_chars_per_second:
        reasons.append("too_fast")
    return reasons


def tempo_limits(tempos: Sequence[float], fence: float) -> tuple[float, float]:
    """Lowest and highest usual tempo: quartiles widened by ``fence`` quartile ranges.

    Fewer than 20 clips say nothing about what is usual; then there is no limit.
    """
    if len(tempos) < _FEWEST_CLIPS_FOR_QUARTILES:
        return 0.0, float("inf")
    first, third = np.quantile(np.asarray(tempos, dtype=np.float64), [0.25, 0.75])
    spread = float(third - first)
    return float(first) - fence * spread, float(third) + fence * spread


def find_duplicates(clips: Sequence[Candidate]) -> dict[str, tuple[str, str]]:
    """Clips that repeat an earlier one: id -> (reason, id of the first)."""
    by_sound: dict[str, str] = {}
    by_text: dict[str, list[Candidate]] = {}
    found: dict[str, tuple[str, str]] = {}
    for clip in clips:
        if clip.pcm_sha256 in by_sound:
            found[clip.id] = ("same_sound", by_sound[clip.pcm_sha256])
            continue
        by_sound[clip.pcm_sha256] = clip.id
        alike = by_text.setdefault(clip.text, [])
        twin = next((other for other in alike if _same_length(clip, other)), None)
        if twin is not None:
            found[clip.id] = ("same_text_and_length", twin.id)
        else:
            alike.append(clip)
    return found


def _same_length(one: Candidate, other: Candidate) -> bool:
    longer = max(one.duration_seconds, other.duration_seconds)
    return abs(one.duration_seconds - other.duration_seconds) < _SAME_LENGTH_SHARE * longer


def judge_dataset(
    clips: Sequence[Candidate], params: DatasetParams
) -> dict[str, tuple[list[str], str | None]]:
    """Every clip that must go: id -> (reasons, id of the clip it repeats).

    Clips are judged alone first; those that pass set the usual tempo; those that still pass are
    compared with each other, in the order given, and the first of equals stays.
    """
    out: dict[str, tuple[list[str], str | None]] = {}
    for clip in clips:
        if reasons := judge_clip(clip, params):
            out[clip.id] = (reasons, None)
    passed = [clip for clip in clips if clip.id not in out]
    low, high = tempo_limits([c.characters_per_second for c in passed], params.outlier_iqr)
    for clip in passed:
        if not low <= clip.characters_per_second <= high:
            out[clip.id] = (["tempo_outlier"], None)
    if params.reject_duplicates:
        usual = [clip for clip in passed if clip.id not in out]
        for clip_id, (reason, first) in find_duplicates(usual).items():
            out[clip_id] = ([reason], first)
    return out
