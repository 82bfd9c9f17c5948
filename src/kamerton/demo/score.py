"""How well the data stages did on the demo corpus, where the truth is known to the word.

Only the demo can know these numbers: recordings from life have no truth beside them.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_jsonl
from kamerton.demo.truth import read_truth
from kamerton.metrics.intelligibility import word_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kamerton.demo.truth import SpokenWord, TrueSentence

Interval = tuple[float, float]  # seconds
_NAMED_CUTS = 3  # in the summary


@dataclass(frozen=True, slots=True)
class CutWord:
    """A word that a kept clip begins or ends in the middle of."""

    source: str
    word: str
    at_seconds: float


@dataclass(frozen=True, slots=True)
class SegmentationScore:
    """Clips against the truth.

    Attributes:
        speech_seconds: true speech, the sum over all words: pauses do not count.
        kept_speech_seconds: how much of it lies in kept clips.
        cut_words: kept clips' borders strictly inside a word; no tolerance.
        borders: borders looked at, two for each kept clip.
        longest_seconds: the longest kept clip; 0 when none was kept.
    """

    speech_seconds: float
    kept_speech_seconds: float
    cut_words: tuple[CutWord, ...]
    borders: int
    longest_seconds: float
    kept: int
    rejected: int

    @property
    def kept_share(self) -> float:
        """Share of the true speech that is kept, 0..1."""
        return self.kept_speech_seconds / self.speech_seconds if self.speech_seconds else 0.0


@dataclass(frozen=True, slots=True)
class TranscriptionScore:
    """Transcripts against the truth, over the whole corpus (not a mean of clips).

    Attributes:
        wer: word error rate of every transcribed clip, believed or not.
        kept_wer: of the transcripts that passed the filters; what the dataset is made of.
        clips: transcribed clips; ``kept`` of them passed.
        words: true words in the transcribed clips; ``kept_words`` in those that passed.
    """

    wer: float
    kept_wer: float
    clips: int
    kept: int
    words: int
    kept_words: int


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """Both scores, as the demo's table and `kamerton measure` show them."""

    segmentation: SegmentationScore
    transcription: TranscriptionScore

    def metrics(self) -> dict[str, float]:
        """Flat numbers by name."""
        clips, heard = self.segmentation, self.transcription
        return {
            "true_speech_seconds": round(clips.speech_seconds, 3),
            "kept_speech_share": round(clips.kept_share, 5),
            "words_cut": len(clips.cut_words),
            "borders": clips.borders,
            "longest_clip_seconds": round(clips.longest_seconds, 3),
            "clips_kept": clips.kept,
            "clips_rejected": clips.rejected,
            "transcripts_wer": round(heard.wer, 5),
            "kept_transcripts_wer": round(heard.kept_wer, 5),
            "transcripts": heard.clips,
            "transcripts_kept": heard.kept,
            "true_words": heard.words,
        }

    def summary(self) -> list[tuple[str, str]]:
        """Rows for a table."""
        clips, heard = self.segmentation, self.transcription
        cuts = f"{len(clips.cut_words)} of {clips.borders} clip borders"
        named = [f"{cut.word} at {cut.at_seconds:.2f} s" for cut in clips.cut_words[:_NAMED_CUTS]]
        return [
            ("true speech kept", f"{clips.kept_share:.1%} of {clips.speech_seconds:.0f} s"),
            ("cuts inside a word", f"{cuts} ({', '.join(named)})" if named else cuts),
            ("longest clip", f"{clips.longest_seconds:.2f} s"),
            (
                "WER of transcripts",
                f"{heard.wer:.1%} of {heard.words} words; {heard.kept_wer:.1%} of those kept",
            ),
        ]


def score_files(truth: Path, clips: Path, transcripts: Path) -> CorpusScore:
    """Score what `segment` wrote to ``clips`` and `transcribe` to ``transcripts``.

    Raises:
        InputMissingError: one of them is not there yet.
        InputCorruptError: one of them cannot be read.
    """
    sentences = read_truth(truth)
    rows = read_jsonl(clips / "clips.jsonl", produced_by="segment")
    heard = read_jsonl(transcripts, produced_by="transcribe")
    known = {row["id"] for row in rows}
    for row in heard:
        if row["id"] not in known:
            raise InputCorruptError(
                transcripts,
                problem=f"the clip {row['id']} is not among {clips}",
                hint="run `kamerton transcribe --force` for these clips",
            )
    return CorpusScore(
        score_segmentation(sentences, rows), score_transcripts(sentences, rows, heard)
    )


def score_segmentation(
    truth: Iterable[TrueSentence], clips: Sequence[Mapping[str, Any]]
) -> SegmentationScore:
    """Compare rows of ``clips.jsonl`` with the truth."""
    words = _words_by_source(truth)
    kept = [row for row in clips if row["status"] == "kept"]
    intervals: dict[str, list[Interval]] = defaultdict(list)
    for row in kept:
        intervals[row["source"]].append(clip_interval(row))
    covered = {source: merged(spans) for source, spans in intervals.items()}
    speech = {source: merged(_spans(spoken)) for source, spoken in words.items()}
    return SegmentationScore(
        speech_seconds=sum(_length(spans) for spans in speech.values()),
        kept_speech_seconds=sum(
            overlap_seconds(spans, covered.get(source, [])) for source, spans in speech.items()
        ),
        cut_words=tuple(
            cut
            for row in kept
            for edge in clip_interval(row)
            for cut in _cut_at(row["source"], words.get(row["source"], []), edge)
        ),
        borders=2 * len(kept),
        longest_seconds=max((end - start for start, end in map(clip_interval, kept)), default=0.0),
        kept=len(kept),
        rejected=len(clips) - len(kept),
    )


def score_transcripts(
    truth: Iterable[TrueSentence],
    clips: Sequence[Mapping[str, Any]],
    transcripts: Sequence[Mapping[str, Any]],
) -> TranscriptionScore:
    """Compare rows of ``transcripts.jsonl`` with what is said in their clips.

    A true word belongs to the clip that holds its middle. Words in no clip count for the
    segmentation, not here.
    """
    words = _words_by_source(truth)
    rows = {row["id"]: row for row in clips}
    said: list[str] = []
    heard: list[str] = []
    passed: list[bool] = []
    for transcript in transcripts:
        clip = rows[transcript["id"]]
        said.append(said_in(words.get(clip["source"], []), clip_interval(clip)))
        heard.append(transcript["text"])
        passed.append(transcript["status"] == "kept")
    everything = word_errors(said, heard)
    believed = word_errors(
        [text for text, ok in zip(said, passed, strict=True) if ok],
        [text for text, ok in zip(heard, passed, strict=True) if ok],
    )
    return TranscriptionScore(
        wer=everything.wer,
        kept_wer=believed.wer,
        clips=len(said),
        kept=sum(passed),
        words=everything.words,
        kept_words=believed.words,
    )


def clip_interval(row: Mapping[str, Any]) -> Interval:
    """A clip's place in its recording, in seconds."""
    rate = row["sample_rate_hz"]
    return row["start_sample"] / rate, row["end_sample"] / rate


def said_in(words: Sequence[SpokenWord], interval: Interval) -> str:
    """The words whose middle lies in the interval."""
    start, end = interval
    return " ".join(
        word.word for word in words if start <= (word.start_seconds + word.end_seconds) / 2 < end
    )


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """The union of intervals as sorted intervals that do not touch."""
    union: list[Interval] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return union


def overlap_seconds(one: Sequence[Interval], other: Sequence[Interval]) -> float:
    """Length of the intersection of two unions (see :func:`merged`)."""
    total, j = 0.0, 0
    for start, end in one:
        while j < len(other) and other[j][1] <= start:
            j += 1
        k = j
        while k < len(other) and other[k][0] < end:
            total += min(end, other[k][1]) - max(start, other[k][0])
            k += 1
    return total


def _words_by_source(truth: Iterable[TrueSentence]) -> dict[str, list[SpokenWord]]:
    words: dict[str, list[SpokenWord]] = defaultdict(list)
    for sentence in truth:
        words[sentence.source] += sentence.words
    for spoken in words.values():
        spoken.sort(key=lambda word: word.start_seconds)
    return dict(words)


def _spans(words: Iterable[SpokenWord]) -> list[Interval]:
    return [(word.start_seconds, word.end_seconds) for word in words]


def _length(spans: Iterable[Interval]) -> float:
    return sum(end - start for start, end in spans)


def _cut_at(source: str, words: Sequence[SpokenWord], edge: float) -> list[CutWord]:
    """The word that ``edge`` falls strictly inside of, if any; words must be sorted."""
    at = bisect.bisect_left(words, edge, key=lambda word: word.start_seconds) - 1
    if at >= 0 and words[at].start_seconds < edge < words[at].end_seconds:
        return [CutWord(source, words[at].word, edge)]
    return []
