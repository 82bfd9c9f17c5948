"""Write down what each clip says, with the recogniser's confidence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.resample import resample
from kamerton.config.schema import Params
from kamerton.core.cache import WorkCache
from kamerton.core.errors import InputEmptyError
from kamerton.core.files import read_json, require_apart, require_new, write_jsonl
from kamerton.core.progress import Progress, silent
from kamerton.data.clips_folder import ORIGIN_FILE, SHARD
from kamerton.data.filters import judge_recognition, repeated_answers, unique_word_share
from kamerton.data.given_texts import (
    TEXTS_FILE,
    ClipText,
    Matched,
    align_given,
    match_given,
    read_texts,
)
from kamerton.data.listening import Listener, Sound, find_language, listen
from kamerton.data.manifest import decode_flac
from kamerton.data.tables import KEPT, REJECTED, Clip, read_clip_file, read_clips
from kamerton.data.transcription import (
    ALONE,
    PACKED,
    RATE_HZ,
    Recognition,
    find_model,
    listening_identity,
    load_recogniser,
)

RECOGNISED = "recognised"
_SHOWN_PROBLEMS = 3
_NOTHING_HEARD = {
    name: None for name in Recognition.__dataclass_fields__ if name not in ("text", "language")
}


@dataclass(frozen=True, slots=True)
class TranscribeReport:
    """How many clips were heard and how many answers are believed.

    ``origins`` counts texts by where they come from; ``packed`` the clips answered from a shared
    window; ``redone`` those whose first such answer was not good, by why, of which
    ``redone_alone`` were then heard on their own. ``problems`` are corrections that could not be
    used.
    """

    clips: int
    kept: int
    seconds: float
    mean_avg_logprob: float | None
    reasons: dict[str, int]
    origins: dict[str, int] = field(default_factory=dict)
    windows: int = 0
    packed: int = 0
    redone: dict[str, int] = field(default_factory=dict)
    redone_alone: int = 0
    problems: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether a correction could not be used; an answer not believed is a verdict."""
        return bool(self.problems)

    def metrics(self) -> dict[str, float]:
        """Flat figures for the pipeline's metrics."""
        figures = {
            "clips": float(self.clips),
            "kept": float(self.kept),
            "rejected": float(self.clips - self.kept),
            "seconds": round(self.seconds, 3),
            "windows": float(self.windows),
            "packed": float(self.packed),
            "redone": float(sum(self.redone.values())),
            "redone_alone": float(self.redone_alone),
        }
        figures |= {f"texts_{name}": float(n) for name, n in sorted(self.origins.items())}
        if self.mean_avg_logprob is not None:
            figures["mean_avg_logprob"] = self.mean_avg_logprob
        return figures

    def summary(self) -> list[tuple[str, str]]:
        """What the terminal shows."""
        lines = [("clips", f"{self.clips} ({self.seconds / 60:.1f} min)")]
        if set(self.origins) - {RECOGNISED}:
            lines.append(("texts", _counted(self.origins)))
        if self.windows:
            lines.append(("packed", f"{self.packed} clips in {self.windows} windows"))
            lines.append(("heard again", self._again()))
        lines.append(("believed", str(self.kept)))
        lines += [(f"not believed: {name}", str(n)) for name, n in sorted(self.reasons.items())]
        if self.mean_avg_logprob is not None:
            lines.append(("mean log probability", f"{self.mean_avg_logprob:.3f}"))
        lines += [("not used", problem) for problem in self.problems[:_SHOWN_PROBLEMS]]
        if more := len(self.problems) - _SHOWN_PROBLEMS:
            lines += [("not used", f"and {more} more")] if more > 0 else []
        return lines

    def _again(self) -> str:
        """How many answers from shared windows were not taken, and why."""
        count = sum(self.redone.values())
        if not count:
            return "none"
        share = count / (self.packed + self.redone_alone)
        return f"{count} ({share:.0%}; {_counted(self.redone)}), {self.redone_alone} of them alone"


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(numbers.items()))


def transcribe(
    clips: Path,
    transcripts: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
    cache: Path | None = None,
) -> TranscribeReport:
    """Write the text of every kept clip of ``clips`` to ``transcripts`` (one JSON object a line).

    What a person wrote beside the recordings replaces recognition. Every figure of the recogniser
    is recorded beside the verdict, and with a ``cache`` other limits, a correction or one more
    recording cost no second hearing of the rest. A part cut with ``segment --shard`` may well have
    no clips, and corrections of the other parts' clips are no problem in it.

    Raises:
        InputMissingError, InputCorruptError: the clips are not there, or damaged.
        InputEmptyError: no clip was kept when they were cut.
        ToolMissingError, ParamsError: see ``load_recogniser``.
    """
    require_new(transcripts, force=force)
    require_apart(transcripts, clips)
    is_part = _is_part(clips)
    every = read_clips(clips)
    kept = [clip for clip in every if clip.status == KEPT]
    if not kept and not is_part:
        hint = "see the reasons in its clips.jsonl; loosen the section segment, or add recordings"
        raise InputEmptyError(clips, wanted="clip that was kept", hint=hint)
    texts = read_texts(clips / TEXTS_FILE)
    matched = match_given(texts, every, params.text.language) if texts else Matched()
    work = _Work(clips, kept, matched, params, cache, on_progress)
    work.listen()
    given, notes = _all_given(matched, every, work.answers)
    rows = _rows(kept, given, notes, work.answers, params, model=work.model)
    write_jsonl(transcripts, rows)
    problems = tuple(
        str(problem)
        for problem in matched.problems
        if not (is_part and problem.reason == "correction_unused")
    )
    return _report(kept, rows, work.windows, problems)


def _is_part(clips: Path) -> bool:
    """Whether the folder holds one share of the recordings, but the texts of all."""
    origin = clips / ORIGIN_FILE
    return origin.exists() and SHARD in read_json(origin, produced_by="segment")


class _Work:
    """Hears recording by recording; afterwards ``answers`` holds what was recognised by clip."""

    def __init__(
        self,
        clips: Path,
        kept: list[Clip],
        matched: Matched,
        params: Params,
        cache: Path | None,
        on_progress: Progress,
    ) -> None:
        self._clips, self._params, self._on_progress = clips, params, on_progress
        self._by_source: dict[str, list[Clip]] = {}
        for clip in kept:
            self._by_source.setdefault(clip.source, []).append(clip)
        self._given = matched.by_clip
        self._listener = _listener(params, cache)
        self._total = sum(clip.duration_seconds for clip in kept if clip.id not in self._given)
        self._done = 0.0
        self.model = find_model(params.transcribe).identity if self._total else None
        self.answers: dict[str, Recognition] = {}
        self.windows = 0

    def listen(self) -> None:
        """Fill ``answers``; progress counts seconds of sound."""
        for source, members in self._by_source.items():
            self._on_progress(self._done, self._total, source)
            needed = [at for at, clip in enumerate(members) if clip.id not in self._given]
            if needed:
                self._hear(source, members, needed)
        self._on_progress(self._total, self._total)

    def _hear(self, source: str, members: list[Clip], needed: list[int]) -> None:
        def advance(seconds: float) -> None:
            self._done += seconds
            self._on_progress(self._done, self._total, source)

        sounds = [_sound(self._clips, clip) for clip in members]
        params = self._params.transcribe
        language, sure = self._params.text.language, None
        if params.detect_language:
            language, sure = find_language(sounds, self._listener)
        heard = listen(
            sounds, self._listener, language, packed=params.pack, needed=needed, on_heard=advance
        )
        self.windows += heard.windows
        for at, answer in heard.answers.items():
            self.answers[members[at].id] = replace(answer, language_prob=sure)


def _listener(params: Params, cache: Path | None) -> Listener:
    return Listener(
        load=lambda: load_recogniser(params.transcribe, params.text.language),
        identity=lambda: listening_identity(params.transcribe, find_model(params.transcribe)),
        cache=WorkCache(cache) if cache is not None else None,
    )


def _sound(clips: Path, clip: Clip) -> Sound:
    assert clip.audio_sha256 is not None  # read_clips refuses kept clips without one
    return Sound(clip.audio_sha256, clip.duration_seconds, partial(_read, clips, clip))


def _read(clips: Path, clip: Clip) -> NDArray[np.float32]:
    payload, where = read_clip_file(clips, clip), f"{clips / str(clip.file)} (clip {clip.id})"
    wave, rate_hz = decode_flac(payload, where, written_by="segment")
    return resample(wave, rate_hz, RATE_HZ)


def _all_given(
    matched: Matched, every: Sequence[Clip], answers: dict[str, Recognition]
) -> tuple[dict[str, ClipText], dict[str, str]]:
    """Texts of people by clip, those of whole recordings shared out; and notes on the rest."""
    if not matched.to_align:
        return matched.by_clip, matched.notes
    # What a person corrected is a better guide to the rest than what was recognised.
    known = {clip: answer.text for clip, answer in answers.items()}
    known |= {clip: text.text for clip, text in matched.by_clip.items() if text.text}
    aligned, notes = align_given(matched.to_align, every, known)
    return aligned | matched.by_clip, matched.notes | notes


def _rows(
    kept: list[Clip],
    given: dict[str, ClipText],
    notes: dict[str, str],
    answers: dict[str, Recognition],
    params: Params,
    *,
    model: str | None,
) -> list[dict[str, Any]]:
    heard = [clip for clip in kept if clip.id not in given]
    reasons = _judge(heard, answers, params)
    made_by = {"backend": params.transcribe.backend, "model": model}
    return [
        _given_row(clip, given[clip.id], params.text.language)
        if clip.id in given
        else _heard_row(clip, answers[clip.id], reasons[clip.id], made_by, notes.get(clip.id))
        for clip in kept
    ]


def _judge(
    heard: list[Clip], answers: dict[str, Recognition], params: Params
) -> dict[str, list[str]]:
    """Reasons by clip; runs of one answer are looked for inside each recording."""
    language = params.text.language
    reasons = {
        clip.id: judge_recognition(answers[clip.id], params.transcribe, language) for clip in heard
    }
    by_source: dict[str, list[str]] = {}
    for clip in heard:
        by_source.setdefault(clip.source, []).append(clip.id)
    for members in by_source.values():
        for repeated in repeated_answers([answers[clip_id].text for clip_id in members]):
            reasons[members[repeated]].append("repeated_answer")
    return reasons


def _heard_row(
    clip: Clip,
    answer: Recognition,
    reasons: list[str],
    made_by: dict[str, str | None],
    note: str | None,
) -> dict[str, Any]:
    return {
        "id": clip.id,
        **asdict(answer),
        **_text_figures(clip, answer.text),
        **made_by,
        "origin": RECOGNISED,
        "where": None,
        "note": note,
        "status": REJECTED if reasons else KEPT,
        "reasons": reasons,
    }


def _given_row(clip: Clip, given: ClipText, language: str) -> dict[str, Any]:
    """A person's text stands whatever the figures; an empty one drops the clip."""
    return {
        "id": clip.id,
        "text": given.text,
        "language": language,
        **_NOTHING_HEARD,
        **_text_figures(clip, given.text),
        "backend": None,
        "model": None,
        "origin": given.origin,
        "where": given.where,
        "note": None,
        "status": KEPT if given.text else REJECTED,
        "reasons": [] if given.text else ["dropped_by_hand"],
    }


def _text_figures(clip: Clip, text: str) -> dict[str, float]:
    seconds = clip.duration_seconds
    return {
        "chars_per_second": round(len(text) / seconds, 3) if seconds > 0 else 0.0,
        "unique_word_share": round(unique_word_share(text), 5),
    }


def _report(
    kept: list[Clip], rows: list[dict[str, Any]], windows: int, problems: tuple[str, ...]
) -> TranscribeReport:
    sure = [row["avg_logprob"] for row in rows if row["avg_logprob"] is not None]
    return TranscribeReport(
        clips=len(kept),
        kept=sum(row["status"] == KEPT for row in rows),
        seconds=sum(clip.duration_seconds for clip in kept),
        mean_avg_logprob=round(float(np.mean(sure)), 5) if sure else None,
        reasons=dict(Counter(name for row in rows for name in row["reasons"])),
        origins=dict(Counter(row["origin"] for row in rows)),
        windows=windows,
        packed=sum(row["way"] == PACKED for row in rows),
        redone=dict(Counter(row["redo"] for row in rows if row["redo"])),
        redone_alone=sum(row["way"] == ALONE for row in rows if row["redo"]),
        problems=problems,
    )
