"""A decoder's answer with timestamps, read as texts with times."""

from collections.abc import Callable, Sequence

from kamerton.data.attribution import TimedText

_STEP_SECONDS = 0.02  # between two of Whisper's timestamps


def read_tokens(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    *,
    first_timestamp: int,
    end_of_text: int,
    decode: Callable[[list[int]], str],
) -> tuple[TimedText, ...]:
    """The timed texts of a decoder's answer.

    ``tokens`` and ``logprobs`` are of one length, the final end-of-text left out. Timestamps come
    in pairs around a text, but neither the first nor the last is certain.
    """
    texts: list[TimedText] = []
    start, words, sure = 0.0, list[int](), list[float]()

    def close(end: float | None) -> None:
        if words and (text := decode(words).strip()):
            texts.append(TimedText(start, end, text, tuple(sure)))
        words.clear()
        sure.clear()

    for token, logprob in zip(tokens, logprobs, strict=True):
        if token >= first_timestamp:
            time = (token - first_timestamp) * _STEP_SECONDS
            close(time)
            start = time
        elif token < end_of_text:
            words.append(token)
            sure.append(logprob)
    close(None)
    return tuple(texts)
