"""Which clips are fit to train on; every refusal has a reason with a name.

All rules are pure functions of recorded numbers, so they can be run again with other limits
without listening to anything again.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kamerton.config.schema import DatasetParams, TranscribeParams
from kamerton.data.duplicates import Candidate, SoundsAlike, find_duplicates
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
    "unsure_language": "the recogniser was unsure of the recording's language",
    "known_hallucination": "a phrase that recognisers invent where there is no speech",
    "dropped_by_hand": "a correction with an empty text",
    "forced_cut": "no pause within segment.max_seconds: a word would be cut",
    "low_snr": "noisier than segment.min_snr_db",
    "damaged": "the recording is broken there, or breaks off",
    "no_transcript": "there is no transcript",
    "no_clip": "there is a transcript but no clip",
    "no_spoken_text": "nothing that is spoken is left after normalisation",
    "too_short": "shorter than dataset.min_clip_seconds",
    "too_long": "longer than dataset.max_clip_seconds",
    "too_slow": "too few characters per second: words are missing",
    "too_fast": "too many characters per second: words were invented",
    "tempo_outlier": "its tempo is far from the rest of the dataset",
    "length_outlier": "its length is far from the rest of the dataset",
    "same_sound": "the same samples as another clip",
    "same_sound_again": "the same recording as another clip: louder, by another codec, or shifted",
    "same_text_and_length": "the same text and length as another clip",
}

_ANSWERS_IN_A_ROW = 3
_FEWEST_WORDS_TO_JUDGE = 4
_FEWEST_CLIPS_FOR_QUARTILES = 20
# Quartiles of lengths closer than this (a quarter) would make outliers of ordinary clips.
_LEAST_LENGTH_SPREAD = math.log(1.25)


def judge_recognition(answer: Recognition, params: TranscribeParams, language: str) -> list[str]:
    """Reasons not to believe one answer, in a fixed order; none when it is believed.

    ``language`` is the one that the recordings should be in.
    """
    words = answer.text.lower().split()
    reasons = [] if words else ["empty_text"]
    if answer.language_prob is not None and answer.language_prob < params.min_language_prob:
        reasons.append("unsure_language")
    elif answer.language != language:
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
    if enough and unique_word_share(answer.text) < params.min_unique_word_share:
        reasons.append("repeated_words")
    if is_one_of(answer.text, params.hallucinations):
        reasons.append("known_hallucination")
    return reasons


def unique_word_share(text: str) -> float:
    """Different words by words, letter case aside; 1 for no words."""
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 1.0


def is_one_of(text: str, phrases: Iterable[str]) -> bool:
    """Whether the whole text is one of the phrases, letter case, accents and punctuation aside.

    A phrase that ends in ``*`` stands for every text that begins so.
    """
    said = _plain(text)
    return any(
        said == _plain(phrase)
        or (phrase.endswith("*") and f"{said} ".startswith(f"{_plain(phrase)} "))
        for phrase in phrases
        if _plain(phrase)
    )


def _plain(text: str) -> str:
    """Letters and digits only, in lower case and single spaces."""
    whole = unicodedata.normalize("NFKD", text).casefold()
    letters = (char for char in whole if not unicodedata.combining(char))
    return " ".join("".join(char if char.isalnum() else " " for char in letters).split())


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


def judge_clip(clip: Candidate, params: DatasetParams) -> list[str]:
    """Reasons that one clip alone gives; none when it may stay."""
    reasons = [] if clip.text else ["no_spoken_text"]
    if clip.duration_seconds < params.min_clip_seconds:
        reasons.append("too_short")
    if clip.duration_seconds > params.max_clip_seconds:
        reasons.append("too_long")
    if clip.corrected:
        return reasons
    if clip.text and clip.characters_per_second < params.min_chars_per_second:
        reasons.append("too_slow")
    if clip.characters_per_second > params.max_chars_per_second:
        reasons.append("too_fast")
    return reasons


def usual_range(
    values: Sequence[float], fence: float, *, least_spread: float = 0.0
) -> tuple[float, float]:
    """Lowest and highest usual value: quartiles widened by ``fence`` quartile ranges.

    Fewer than 20 values say nothing about what is usual; then there is no limit.
    """
    if len(values) < _FEWEST_CLIPS_FOR_QUARTILES:
        return -math.inf, math.inf
    first, third = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.75])
    spread = max(float(third - first), least_spread)
    return float(first) - fence * spread, float(third) + fence * spread


def outliers(clips: Sequence[Candidate], params: DatasetParams) -> dict[str, str]:
    """Clips unlike the rest of the dataset: id -> reason.

    Tempo is compared as it is, length by its logarithm: twice as long is as odd as half as long.
    """
    fence = params.outlier_iqr
    slow, fast = usual_range([clip.characters_per_second for clip in clips], fence)
    lengths = {clip.id: math.log(max(clip.duration_seconds, 1e-9)) for clip in clips}
    short, long = usual_range(list(lengths.values()), fence, least_spread=_LEAST_LENGTH_SPREAD)
    found: dict[str, str] = {}
    for clip in clips:
        if not slow <= clip.characters_per_second <= fast and not clip.corrected:
            found[clip.id] = "tempo_outlier"
        elif not short <= lengths[clip.id] <= long:
            found[clip.id] = "length_outlier"
    return found


def _never(one: str, other: str) -> bool:
    del one, other
    return False


def judge_dataset(
    clips: Sequence[Candidate], params: DatasetParams, sounds_alike: SoundsAlike = _never
) -> dict[str, tuple[list[str], str | None]]:
    """Every clip that must go: id -> (reasons, id of the clip it repeats).

    Clips are judged alone first; those that pass set what is usual; those that still pass are
    compared with each other, in the order given, and the first of equals stays. ``sounds_alike``
    listens to two clips, given by their ids.
    """
    out: dict[str, tuple[list[str], str | None]] = {}
    for clip in clips:
        if reasons := judge_clip(clip, params):
            out[clip.id] = (reasons, None)
    passed = [clip for clip in clips if clip.id not in out]
    for clip_id, reason in outliers(passed, params).items():
        out[clip_id] = ([reason], None)
    if params.reject_duplicates:
        usual = [clip for clip in passed if clip.id not in out]
        for clip_id, (reason, first) in find_duplicates(usual, sounds_alike).items():
            out[clip_id] = ([reason], first)
    return out
