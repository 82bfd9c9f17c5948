"""Which words of a packed window belong to which clip, and which clips must be heard alone.

Pure functions of what the decoder wrote: they can run again on recorded answers.
"""

import math
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from kamerton.data.windows import WINDOW_SECONDS, Place

# Why a clip is heard again, alone; the keys stand in transcripts.jsonl.
REDO_REASONS: dict[str, str] = {
    "straddles": "a text reaches from one clip into another",
    "stray": "a text beside the clip, in silence",
    "no_text": "no text lies in the clip, though one follows",
    "not_reached": "the decoder stopped before the clip",
    "cut_off": "the answer ended in the middle of the clip's text",
    "partly_heard": "the text covers less than half of the clip",
    "broken_text": "a letter was left half written",
    "unsure": "the log probability of its words, or of a few in a row, is low",
    "odd_confidence": "its log probability is low beside the other clips",
    "repetitive": "its text compresses too well",
    "odd_tempo": "too few or too many characters for its length, or beside the other clips",
}

# A packed answer must be clearly good to save the work of hearing the clip alone, so this is
# stricter than Whisper's own limit of -1.
LOW_LOGPROB = -0.7
LOW_RUN_LOGPROB = -1.5  # words that were made up stand in a row; one rare name may well be unlikely
RUN_TOKENS = 4
HIGH_COMPRESSION_RATIO = 2.4  # Whisper's own
SLOWEST, FASTEST = 2.0, 30.0  # characters a second, spaces included
LEAST_COVERED_SHARE = 0.5
USUAL_TEMPO = (0.5, 1.6)  # times the median of the recording
SAME_TEMPO = 0.1
SURE_LOGPROB = -0.02
TUKEY = 1.5
FEWEST_TO_COMPARE = 8  # clips of a recording
STRADDLE_SECONDS = 0.3  # decoders are not more exact about when a text ends
_CERTAIN = 1e-6
_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class TimedText:
    """A stretch of text with its place in the window.

    ``end_seconds`` is None where the answer ended before it said when; ``logprobs`` are natural
    logarithms of the probability of each token of text.
    """

    start_seconds: float
    end_seconds: float | None
    text: str
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """What the decoder wrote for one window, timestamps on.

    Attributes:
        texts: in the order written.
        no_speech_prob: of the window as a whole; nobody knows it for each clip.
        ended: False where the answer grew to its longest and was cut.
    """

    texts: tuple[TimedText, ...]
    no_speech_prob: float | None
    ended: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What of a window's answer belongs to one clip; ``redo`` says why it is not to be trusted."""

    text: str
    avg_logprob: float | None
    compression_ratio: float | None
    redo: str | None


def attribute(places: Sequence[Place], answer: WindowAnswer) -> list[Share]:
    """The share of each clip in a window's answer, in order of the places."""
    owned: list[list[TimedText]] = [[] for _ in places]
    redo: dict[int, str] = {}
    window_end = max((place.end_seconds for place in places), default=0.0)
    for text in answer.texts:
        start, end = _interval(text, window_end)
        met = [place.overlap(start, end) for place in places]
        inside = [index for index, seconds in enumerate(met) if seconds > STRADDLE_SECONDS]
        best = max(range(len(places)), key=met.__getitem__)
        if met[best] <= 0.0:
            best = _nearest(places, start, end)
        if len(inside) > 1:
            redo |= dict.fromkeys(inside, "straddles")
        elif _distance(places[best], start, end) > 0.0:
            redo.setdefault(best, "stray")
        else:
            owned[best].append(text)
            if text.end_seconds is None and not answer.ended:
                redo[best] = "cut_off"
    last = max((index for index in range(len(places)) if owned[index] or index in redo), default=-1)
    return [
        _share(place, texts, redo.get(index) or _missing(index, texts, last), window_end)
        for index, (place, texts) in enumerate(zip(places, owned, strict=True))
    ]


def _interval(text: TimedText, window_end: float) -> tuple[float, float]:
    """Inside the window, and never of negative length; an end not given is that of the clips."""
    start = min(max(text.start_seconds, 0.0), WINDOW_SECONDS)
    end = window_end if text.end_seconds is None else text.end_seconds
    return start, max(start, min(end, WINDOW_SECONDS))


def _distance(place: Place, start: float, end: float) -> float:
    return max(place.start_seconds - end, start - place.end_seconds, 0.0)


def _nearest(places: Sequence[Place], start: float, end: float) -> int:
    return min(range(len(places)), key=lambda index: _distance(places[index], start, end))


def _missing(index: int, texts: list[TimedText], last: int) -> str | None:
    if texts:
        return None
    return "not_reached" if index > last else "no_text"


def _share(place: Place, texts: list[TimedText], redo: str | None, window_end: float) -> Share:
    text = " ".join(" ".join(item.text for item in texts).split())
    sure = [logprob for item in texts for logprob in item.logprobs]
    avg_logprob = round(sum(sure) / len(sure), 5) if sure else None
    ratio = compression_ratio(text) if text else None
    return Share(
        text, avg_logprob, ratio, redo or _doubt(place, texts, text, avg_logprob, window_end)
    )


def _doubt(
    place: Place, texts: list[TimedText], text: str, avg_logprob: float | None, window_end: float
) -> str | None:
    """The first figure that looks bad; there is a text."""
    if _BROKEN in text:
        return "broken_text"
    if avg_logprob is None or avg_logprob < LOW_LOGPROB or _has_low_run(texts):
        return "unsure"
    if compression_ratio(text) > HIGH_COMPRESSION_RATIO:
        return "repetitive"
    covered = sum(place.overlap(*_interval(item, window_end)) for item in texts)
    if covered < LEAST_COVERED_SHARE * place.seconds:
        return "partly_heard"
    if not SLOWEST * place.seconds <= len(text) <= FASTEST * place.seconds:
        return "odd_tempo"
    return None


def _has_low_run(texts: Sequence[TimedText]) -> bool:
    sure = [logprob for text in texts for logprob in text.logprobs]
    return any(
        sum(sure[at : at + RUN_TOKENS]) < RUN_TOKENS * LOW_RUN_LOGPROB
        for at in range(len(sure) - RUN_TOKENS + 1)
    )


def odd_tempos(tempos: Sequence[float]) -> set[int]:
    """Positions of tempos far from what is usual in a recording; too few say nothing.

    Far is outside of Tukey's fences, as wide as the reader's own tempo varies, but never within a
    tenth of the median, and always beyond `USUAL_TEMPO`.
    """
    if len(tempos) < FEWEST_TO_COMPARE:
        return set()
    middle = statistics.median(tempos)
    low, high = _fences(tempos)
    low = min(max(low, USUAL_TEMPO[0] * middle), (1.0 - SAME_TEMPO) * middle)
    high = max(min(high, USUAL_TEMPO[1] * middle), (1.0 + SAME_TEMPO) * middle)
    return {at for at, tempo in enumerate(tempos) if not low <= tempo <= high}


def odd_confidences(logprobs: Sequence[float]) -> set[int]:
    """Positions of mean log probabilities far below what is usual in a recording.

    The fence is drawn on a logarithmic scale, on which they spread evenly; what is nearly certain
    is never odd.
    """
    if len(logprobs) < FEWEST_TO_COMPARE:
        return set()
    _, high = _fences([math.log(max(-logprob, _CERTAIN)) for logprob in logprobs])
    limit = -max(math.exp(high), -SURE_LOGPROB)
    return {at for at, logprob in enumerate(logprobs) if logprob < limit}


def _fences(values: Sequence[float]) -> tuple[float, float]:
    """Tukey's: the quartiles, and one and a half of the distance between them beyond."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    reach = TUKEY * (third - first)
    return first - reach, third + reach


def compression_ratio(text: str) -> float:
    """Bytes of a text by bytes it compresses to, as Whisper computes it; 1 for no text."""
    raw = text.encode("utf-8")
    return round(len(raw) / len(zlib.compress(raw)), 5) if raw else 1.0
