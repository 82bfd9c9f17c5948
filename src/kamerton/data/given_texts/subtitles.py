"""SubRip (.srt) and WebVTT (.vtt) subtitles: text with times.

One tolerant reader for both, since files in the wild mix them: numbers may be missing, comma and
dot both stand before milliseconds, hours may be absent or beyond 99, styles, notes and settings
are passed over. Cues are returned by time.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kamerton.data.given_texts.decoding import TextError, decode_text, has_words, shorten, tidy
from kamerton.data.given_texts.model import TextProblem

MAX_PROBLEMS = 100

_CLOCK = r"(?:([0-9]{1,6})\s*:\s*)?([0-9]{1,3})\s*:\s*([0-9]{1,2})(?:\s*[,.:]\s*([0-9]{1,9}))?"
_START = re.compile(_CLOCK)
_ARROW = re.compile(r"-{1,3}\s?>")
_NUMBER = re.compile(r"\s*[0-9]+\s*")
_INLINE_TIME = re.compile(r"<[0-9:.,]{5,20}>")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>|</?>|\{\\[^{}\n]{0,200}\}")
_NO_SPEECH = re.compile(r"\[[^\[\]\n]{0,200}\]|[♪♫♬♩]+")
_DASH = re.compile(r"^\s*[-–—]\s*(?=\S)")
_TOUCHING_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Cue:
    """What is said from ``start_seconds`` to ``end_seconds``; ``line`` is that of its times."""

    line: int
    start_seconds: float
    end_seconds: float
    text: str


def parse_subtitles(data: bytes, where: str) -> tuple[list[Cue], list[TextProblem]]:
    """Every cue with words in it, in order of time, and what is wrong with others.

    Tags, positions, notes on sounds in square brackets, music signs and dashes of dialogue are
    removed. Cues that roll up (each repeats the line before, with a time at every word, as
    automatic captions do) are told once.
    """
    try:
        text = decode_text(data)
    except TextError as error:
        return [], [TextProblem(where, error.reason, error.detail)]
    cues: list[Cue] = []
    problems: list[TextProblem] = []
    rolling = _INLINE_TIME.search(text) is not None
    # SubRip has nothing but cues, so what follows an empty line is a cue's too.
    inner_blanks = where.lower().endswith(".srt") and not text.startswith("WEBVTT")
    before: tuple[float, list[str]] = (0.0, [])
    for number, times, lines in _blocks(text.split("\n"), inner_blanks=inner_blanks):
        if len(problems) >= MAX_PROBLEMS:
            problems.append(TextProblem(f"{where}:{number}", "more_problems"))
            break
        span = _span(times)
        if span is None:
            problems.append(TextProblem(f"{where}:{number}", "bad_time", shorten(times)))
            continue
        spoken = [line for line in map(_spoken, lines) if line]
        new = _new_lines(before, span[0], spoken) if rolling else spoken
        before = (span[1], spoken)
        if has_words(said := tidy(" ".join(new))):
            cues.append(Cue(number, *span, said))
    if not cues and not problems:
        problems.append(TextProblem(where, "no_text", "no subtitle in it"))
    return sorted(cues, key=lambda cue: (cue.start_seconds, cue.end_seconds)), problems


def _blocks(lines: list[str], *, inner_blanks: bool) -> Iterator[tuple[int, str, list[str]]]:
    """Line number of its times, the times, and the lines of text, of every cue.

    A cue ends at an empty line, or where the next one begins without one; with ``inner_blanks``
    only there.
    """
    starts = [number for number, line in enumerate(lines) if _is_timing(line)]
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        body = lines[start + 1 : following]
        end = next((number for number, line in enumerate(body) if not line.strip()), None)
        if end is not None and inner_blanks:
            body = _before_next(body, is_last=following is None)
        elif end is not None:
            body = body[:end]
        elif following is not None and body and _NUMBER.fullmatch(body[-1]):
            body.pop()  # the number of the next cue
        yield start + 1, lines[start], body


def _before_next(body: list[str], *, is_last: bool) -> list[str]:
    """Without the number of the next cue, which stands right before its times, and empty lines."""
    if not is_last and _NUMBER.fullmatch(body[-1]):
        body = body[:-1]
    return [line for line in body if line.strip()]


def _is_timing(line: str) -> bool:
    arrow = _ARROW.search(line)
    return arrow is not None and line[: arrow.start()].strip()[:1].isdigit() and ":" in line


def _span(times: str) -> tuple[float, float] | None:
    begin, end = _ARROW.split(times, maxsplit=1)
    first, second = _START.fullmatch(begin.strip()), _START.match(end.lstrip())
    if first is None or second is None:
        return None
    start_seconds, end_seconds = _seconds(first), _seconds(second)
    return (start_seconds, end_seconds) if start_seconds < end_seconds else None


def _seconds(clock: re.Match[str]) -> float:
    hours, minutes, seconds, fraction = clock.groups()
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + (float(f"0.{fraction}") if fraction else 0.0)


def _spoken(line: str) -> str:
    bare = _unescape(_TAG.sub("", _INLINE_TIME.sub("", line)))
    return tidy(_DASH.sub("", _NO_SPEECH.sub(" ", bare)))


def _unescape(line: str) -> str:
    try:
        return html.unescape(line)
    except ValueError:  # the number of a character has thousands of digits
        return line


def _new_lines(before: tuple[float, list[str]], start: float, lines: list[str]) -> list[str]:
    """Lines that the cue before, if it touches this one, did not end with."""
    end, earlier = before
    if abs(start - end) > _TOUCHING_SECONDS:
        return lines
    for count in range(min(len(earlier), len(lines)), 0, -1):
        if earlier[-count:] == lines[:count]:
            return lines[count:]
    return lines
