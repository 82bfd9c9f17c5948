"""Which given text belongs to which clip."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from kamerton.data.given_texts.alignment import align_text
from kamerton.data.given_texts.model import GivenText, Kind, TextProblem
from kamerton.data.tables import KEPT, Clip

Origin = Literal["corrected", "given"]

# Why a clip of a recording with a given text is left to the recogniser.
NOTES: Mapping[str, str] = {
    "cut_through_cue": "a subtitle lies partly in the clip and partly in another",
    "cues_cover_part": "the subtitles cover only a part of the clip",
    "text_disagrees": "the given text and what was heard differ too much",
}

_SAME_SHARE = 0.9  # of a correction's time and of a clip's
_CUE_SHARE = 0.8  # of a subtitle's time that must lie in one clip
_CUE_SPILL_SECONDS = 0.5  # and how much of it may lie in others
_SPOKEN_SHARE = 0.4  # of a subtitle's time; the rest of it nobody may be heard
_COVERED_SHARE = 0.6  # of a clip with subtitles on; the rest may be pauses and margins
_WHOLE_SHARE = 0.95  # of all clips of a recording that its only kept one must be


@dataclass(frozen=True, slots=True)
class ClipText:
    """A text that replaces recognition; an empty one drops the clip."""

    text: str
    origin: Origin
    kind: Kind
    where: str


@dataclass(frozen=True, slots=True)
class Matched:
    """Clips that need no recogniser, recordings whose text must be aligned, and the rest.

    Attributes:
        by_clip: Text by id of the clip.
        to_align: Text of a whole recording by its name, to be distributed by `align_given` over
            what was recognised in its clips.
        notes: Id of a clip that is left to the recogniser: why (a key of `NOTES`).
        problems: Corrections that contradict each other or fit no clip.
    """

    by_clip: dict[str, ClipText] = field(default_factory=dict)
    to_align: dict[str, GivenText] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    problems: list[TextProblem] = field(default_factory=list)


def match_given(
    texts: Sequence[GivenText], clips: Sequence[Clip], language: str | None = None
) -> Matched:
    """Find the clip of each text; ``clips`` are all of the folder, also those rejected.

    Corrections go before everything else, subtitles before texts of whole recordings, and text
    files before metadata.csv. A correction fits the clip of its id, or else that with which it
    shares nine tenths of its time and of the clip's, since ids change where cuts do. Of several
    files of subtitles for a recording one is taken: that named after ``language``, as in
    ``talk.en.srt``, unless all say the same.
    """
    matched = Matched()
    by_source: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.source, clip.start_sample, clip.id)):
        by_source.setdefault(clip.source, []).append(clip)
    _correct([text for text in texts if text.kind == "correction"], clips, by_source, matched)
    cues: dict[str, list[GivenText]] = {}
    for text in texts:
        if text.kind == "subtitle" and text.source in by_source:
            cues.setdefault(text.source, []).append(text)
    for source, own in cues.items():
        _subtitle(_of_one_file(own, source, language, matched), by_source[source], matched)
    for source, text in _whole_texts(texts, matched).items():
        if source in by_source:
            _whole(source, text, by_source[source], matched)
    return matched


def _correct(
    corrections: Sequence[GivenText],
    clips: Sequence[Clip],
    by_source: Mapping[str, Sequence[Clip]],
    matched: Matched,
) -> None:
    known = {clip.id: clip for clip in clips}
    chosen: dict[str, list[GivenText]] = {}
    for text in corrections:
        clip = known.get(text.id or "") or _at(text, by_source.get(text.source or "", ()))
        if clip is None:
            what = text.id or f"{text.source} {text.start_seconds:g} to {text.end_seconds:g} s"
            matched.problems.append(TextProblem(text.where, "correction_unused", what))
        elif clip.status == KEPT:
            chosen.setdefault(clip.id, []).append(text)
        elif text.text:
            detail = f"{clip.id}: {', '.join(clip.reasons)}"
            matched.problems.append(TextProblem(text.where, "correction_of_rejected", detail))
    for clip_id, own in chosen.items():
        if problem := _contradiction(own, clip_id):
            matched.problems.append(problem)
        else:
            where = own[0].where
            matched.by_clip[clip_id] = ClipText(own[0].text, "corrected", "correction", where)


def _contradiction(texts: Sequence[GivenText], about: str) -> TextProblem | None:
    """Two lines that say different things of the same, if there are."""
    first = texts[0]
    other = next((text for text in texts if text.text != first.text), None)
    if other is None:
        return None
    return TextProblem(other.where, "contradiction", f"{first.where} says otherwise of {about}")


def _limits(clip: Clip) -> tuple[float, float]:
    return clip.start_sample / clip.sample_rate_hz, clip.end_sample / clip.sample_rate_hz


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def _at(text: GivenText, clips: Sequence[Clip]) -> Clip | None:
    """The clip at the time of a correction; one that was kept rather than one that was not."""
    if text.start_seconds is None or text.end_seconds is None:
        return None
    span = (text.start_seconds, text.end_seconds)
    fitting = [
        (clip.status == KEPT, shared, clip)
        for clip in clips
        if (shared := _overlap(span, _limits(clip))) > 0.0
        and shared >= _SAME_SHARE * (span[1] - span[0])
        and shared >= _SAME_SHARE * (clip.end_sample - clip.start_sample) / clip.sample_rate_hz
    ]
    return max(fitting, key=lambda item: item[:2])[2] if fitting else None


def _of_one_file(
    cues: Sequence[GivenText], source: str, language: str | None, matched: Matched
) -> Sequence[GivenText]:
    """The cues of one of the files about a recording; none where they differ and none is for it."""
    files: dict[str, list[GivenText]] = {}
    for cue in cues:
        files.setdefault(cue.where.rpartition(":")[0], []).append(cue)
    in_language = {
        file: own for file, own in files.items() if language and _language(file) == language.lower()
    }
    chosen = list((in_language or files).values())
    first = chosen[0]
    said = [cue.text for cue in first]
    other = next((own for own in chosen if [cue.text for cue in own] != said), None)
    if other is None:
        return first
    detail = f"{first[0].where} says otherwise of {source}"
    matched.problems.append(TextProblem(other[0].where, "contradiction", detail))
    return ()


def _language(file: str) -> str:
    """``en`` of ``talk.en-GB.srt``; whatever follows the last dot of other names."""
    suffix = PurePosixPath(PurePosixPath(file).stem).suffix
    return suffix.removeprefix(".").replace("_", "-").partition("-")[0].lower()


def _subtitle(cues: Sequence[GivenText], clips: Sequence[Clip], matched: Matched) -> None:
    """Give the clips of one recording the cues that lie in them.

    Subtitles stay on while nobody speaks, so a cue's time counts only where clips are.
    """
    limits = [_limits(clip) for clip in clips]
    inside: list[list[GivenText]] = [[] for _ in clips]
    cut = [False] * len(clips)
    for cue in sorted(cues, key=lambda cue: (cue.start_seconds or 0.0, cue.end_seconds or 0.0)):
        span = (cue.start_seconds or 0.0, cue.end_seconds or 0.0)
        first = bisect.bisect_right(limits, span[0], key=lambda limit: limit[1])
        last = bisect.bisect_left(limits, span[1], key=lambda limit: limit[0])
        shares = {at: _overlap(span, limits[at]) for at in range(first, last)}
        total = sum(shares.values())
        for at, share in shares.items():
            whole = share >= _CUE_SHARE * total and total - share <= _CUE_SPILL_SECONDS
            if whole and share >= _SPOKEN_SHARE * (span[1] - span[0]):
                inside[at].append(cue)
            elif share > _CUE_SPILL_SECONDS or (1.0 - _CUE_SHARE) * total < share < total:
                cut[at] = True
    for clip, own, torn, limit in zip(clips, inside, cut, limits, strict=True):
        if clip.status != KEPT or clip.id in matched.by_clip or not (own or torn):
            continue
        if torn:
            matched.notes[clip.id] = "cut_through_cue"
        elif _covered(own, limit) < _COVERED_SHARE * (limit[1] - limit[0]):
            matched.notes[clip.id] = "cues_cover_part"
        else:
            said = " ".join(cue.text for cue in own)
            matched.by_clip[clip.id] = ClipText(said, "given", "subtitle", own[0].where)


def _covered(cues: Sequence[GivenText], limits: tuple[float, float]) -> float:
    """Seconds of a clip in which a subtitle is on; cues are in order of their beginning."""
    seconds, end = 0.0, limits[0]
    for cue in cues:
        span = (max(cue.start_seconds or 0.0, end), cue.end_seconds or 0.0)
        seconds += _overlap(span, limits)
        end = max(end, span[1])
    return seconds


def _whole_texts(texts: Sequence[GivenText], matched: Matched) -> dict[str, GivenText]:
    """The text of each whole recording; none where two of the same kind differ."""
    chosen: dict[str, GivenText] = {}
    for kind in ("metadata", "text"):  # the last one stays
        own: dict[str, list[GivenText]] = {}
        for text in texts:
            if text.kind == kind and text.source is not None:
                own.setdefault(text.source, []).append(text)
        for source, same in own.items():
            if problem := _contradiction(same, source):
                matched.problems.append(problem)
                chosen.pop(source, None)
            else:
                chosen[source] = same[0]
    return chosen


def _whole(source: str, text: GivenText, clips: Sequence[Clip], matched: Matched) -> None:
    """Give a text to the only clip of a recording, or leave it to be aligned."""
    kept = [clip for clip in clips if clip.status == KEPT]
    if all(clip.id in matched.by_clip for clip in kept):
        return
    seconds = sum(clip.duration_seconds for clip in clips)
    if len(kept) == 1 and kept[0].duration_seconds >= _WHOLE_SHARE * seconds:
        matched.by_clip[kept[0].id] = ClipText(text.text, "given", text.kind, text.where)
        matched.notes.pop(kept[0].id, None)
    else:
        matched.to_align[source] = text


def align_given(
    to_align: Mapping[str, GivenText], clips: Sequence[Clip], recognised: Mapping[str, str]
) -> tuple[dict[str, ClipText], dict[str, str]]:
    """Distribute texts of whole recordings over their clips, led by what was recognised.

    Args:
        to_align: from `Matched`.
        clips: all of the folder.
        recognised: text by id of the kept clips of those recordings, whether believed or not; the
            text of `Matched.by_clip` for clips that have one, so that their words are not given
            to neighbours. A clip may be absent: its words are then unknown.

    Returns:
        Text by id of clip, also for clips that have one already, and notes by id of those that are
        left to the recogniser.
    """
    given: dict[str, ClipText] = {}
    notes: dict[str, str] = {}
    by_source: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.source in to_align:
            by_source.setdefault(clip.source, []).append(clip)
    for source, own in sorted(by_source.items()):
        own.sort(key=lambda clip: (clip.start_sample, clip.id))
        text = to_align[source]
        for clip, piece in zip(
            own, align_text(text.text, [recognised.get(clip.id) for clip in own]), strict=True
        ):
            if piece:
                given[clip.id] = ClipText(piece, "given", text.kind, text.where)
            elif clip.status == KEPT and recognised.get(clip.id) is not None:
                notes[clip.id] = "text_disagrees"
    return given, notes
