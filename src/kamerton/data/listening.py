"""Hear the clips of one recording: packed first, alone what that did not answer well.

Nothing here depends on other recordings, so answers are the same whatever else is in the folder.
Finished windows and clips go into the work cache one by one: a kill loses the one under way.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kamerton.core.cache import WorkCache
from kamerton.core.code import code_digest
from kamerton.core.files import sha256_json, write_json
from kamerton.data.attribution import (
    Share,
    TimedText,
    WindowAnswer,
    attribute,
    odd_confidences,
    odd_tempos,
)
from kamerton.data.transcription import (
    PACKED,
    RATE_HZ,
    ListeningIdentity,
    Recogniser,
    Recognition,
)
from kamerton.data.windows import WINDOW_SECONDS, Place, join_waves, lay, pack

# The filters are not among them: they run again on every answer. Attribution does too, but its
# types are what is kept.
LISTENING_CODE = (
    "data/recognisers",
    "data/transcription.py",
    "data/attribution.py",
    "data/windows.py",
    "data/listening.py",
    "audio/resample.py",
)

_WINDOWS, _CLIPS, _LANGUAGES = "heard-windows", "heard-clips", "heard-languages"
_ENTRY = "answer.json"
_LANGUAGE_WINDOWS = 3
_PACKED_ROUNDS = 2
_FEWEST_TO_PACK_AGAIN = 2
# Faults of a window rather than of a clip: with other neighbours the clip may well be heard.
_WORTH_ANOTHER_WINDOW = {"straddles", "stray", "no_text", "not_reached", "cut_off", "partly_heard"}


Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Sound:
    """A clip to hear; ``key`` is the hash of its samples, ``read`` gives it at 16 kHz."""

    key: str
    seconds: float
    read: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Heard:
    """Answers by the clip's position, and how many packed windows were heard for them."""

    answers: dict[int, Recognition]
    windows: int


@dataclass(slots=True)
class Listener:
    """A recogniser that is loaded when it is first needed, and remembers what it heard.

    ``identity`` is asked for where there is a cache only.
    """

    load: Callable[[], Recogniser]
    identity: Callable[[], ListeningIdentity]
    cache: WorkCache | None = None
    _recogniser: Recogniser | None = field(default=None, init=False)
    _made_by: dict[str, Any] | None = field(default=None, init=False)

    @property
    def recogniser(self) -> Recogniser:
        """The recogniser, loaded now if it was not before."""
        if self._recogniser is None:
            self._recogniser = self.load()
        return self._recogniser

    def windows(
        self, groups: Sequence[Sequence[Sound]], language: str
    ) -> Iterator[tuple[int, tuple[Place, ...], WindowAnswer]]:
        """Each group of sounds as one window: its number, its places, its answer.

        Those heard before come first.
        """
        missing = []
        for number, group in enumerate(groups):
            known = self._find(_WINDOWS, group, language, _window_from)
            if known is None:
                missing.append(number)
            else:
                yield number, *known
        at_once = self.recogniser.windows_at_once if missing else 1
        for start in range(0, len(missing), at_once):
            batch = missing[start : start + at_once]
            heard = self._hear_windows([groups[number] for number in batch], language)
            for number, (places, answer) in zip(batch, heard, strict=True):
                self._keep(_WINDOWS, groups[number], language, _window_row(places, answer))
                yield number, places, answer

    def _hear_windows(
        self, groups: Sequence[Sequence[Sound]], language: str
    ) -> list[tuple[tuple[Place, ...], WindowAnswer]]:
        waves = [[sound.read() for sound in group] for group in groups]
        places = [lay([len(wave) / RATE_HZ for wave in group]) for group in waves]
        joined = [join_waves(group, RATE_HZ) for group in waves]
        # The table may lie about a clip's length; what does not fit is heard alone.
        fits = [len(wave) <= WINDOW_SECONDS * RATE_HZ for wave in joined]
        decoded = self.recogniser.decode_windows(
            [wave for wave, fit in zip(joined, fits, strict=True) if fit], language
        )
        answers = iter(decoded)
        return [
            (place, next(answers) if fit else WindowAnswer((), None, ended=False))
            for place, fit in zip(places, fits, strict=True)
        ]

    def alone(self, sound: Sound, language: str) -> Recognition:
        """One clip on its own, with the whole ladder of temperatures."""
        known = self._find(_CLIPS, [sound], language, _recognition_from)
        if known is not None:
            return known
        answer = self.recogniser.transcribe([sound.read()], language)[0]
        self._keep(_CLIPS, [sound], language, asdict(answer))
        return answer

    def languages(self, group: Sequence[Sound]) -> Mapping[str, float]:
        """How probable each language is in one window of sounds."""
        known = self._find(_LANGUAGES, group, "", _languages_from)
        if known is None:
            wave = join_waves([sound.read() for sound in group], RATE_HZ)
            known = dict(self.recogniser.language_probabilities(wave))
            self._keep(_LANGUAGES, group, "", known)
        return known

    def _key(self, kind: str, group: Sequence[Sound], language: str) -> str:
        if self._made_by is None:
            self._made_by = {**asdict(self.identity()), "code": code_digest(LISTENING_CODE)}
        keys = [sound.key for sound in group]
        return sha256_json([kind, keys, language, self._made_by])

    def _find(
        self,
        kind: str,
        group: Sequence[Sound],
        language: str,
        parse: Callable[[Mapping[str, Any]], Answer],
    ) -> Answer | None:
        if self.cache is None:
            return None
        key = self._key(kind, group, language)
        entry = self.cache.find(kind, key)
        if entry is None:
            return None
        try:
            return parse(json.loads((entry / _ENTRY).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self.cache.discard(kind, key)  # a disk was full, or somebody wrote to it
            return None

    def _keep(
        self, kind: str, group: Sequence[Sound], language: str, row: Mapping[str, Any]
    ) -> None:
        if self.cache is None:
            return
        with self.cache.make(kind, self._key(kind, group, language)) as folder:
            write_json(folder / _ENTRY, row)


def find_language(sounds: Sequence[Sound], listener: Listener) -> tuple[str, float]:
    """The most probable language of a recording and its probability, over up to three windows."""
    groups = pack([sound.seconds for sound in sounds])[:_LANGUAGE_WINDOWS]
    found = [listener.languages([sounds[index] for index in group]) for group in groups]
    means = {
        code: sum(each.get(code, 0.0) for each in found) / len(found)
        for code in sorted({code for each in found for code in each})
    }
    language = max(means, key=means.__getitem__)
    return language, round(means[language], 5)


def listen(
    sounds: Sequence[Sound],
    listener: Listener,
    language: str,
    *,
    packed: bool = True,
    needed: Collection[int] | None = None,
    on_heard: Callable[[float], None] = lambda _seconds: None,
) -> Heard:
    """Answers for the clips of one recording whose positions are ``needed`` (None is all).

    ``sounds`` are all of them, in order: windows are made and heard of all, and the usual tempo is
    that of all, so that no answer changes when a person writes down another clip by hand.
    ``on_heard`` is called with the seconds of each needed clip when its answer is there.
    """
    wanted = set(range(len(sounds)) if needed is None else needed)
    if not wanted:
        return Heard({}, 0)
    hearing = _Hearing(sounds, listener, language, wanted, on_heard)
    if packed:
        hearing.hear_packed()
    hearing.hear_alone()
    hearing.hear_odd_ones()
    return Heard(hearing.answers, hearing.windows)


@dataclass(slots=True)
class _Hearing:
    """The answers so far; ``doubts`` says why a clip's last packed answer was not taken.

    ``tempos`` are characters a second of every packed answer, also of clips not wanted, and
    ``logprobs`` how sure it was.
    """

    sounds: Sequence[Sound]
    listener: Listener
    language: str
    wanted: set[int]
    on_heard: Callable[[float], None]
    answers: dict[int, Recognition] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)
    tempos: dict[int, float] = field(default_factory=dict)
    logprobs: dict[int, float] = field(default_factory=dict)
    windows: int = 0

    def hear_packed(self) -> None:
        """All clips in shared windows, then some of those that were not answered well."""
        groups = pack([sound.seconds for sound in self.sounds])
        for _ in range(_PACKED_ROUNDS):
            groups = [group for group in groups if len(group) > 1]
            self.windows += len(groups)
            members = [[self.sounds[index] for index in group] for group in groups]
            again: list[tuple[int, int]] = []
            for number, places, answer in self.listener.windows(members, self.language):
                shares = attribute(places, answer)
                again += _worth_another(groups[number], shares)
                self._take(groups[number], shares, answer)
            groups = _packed_again(again, self.sounds)

    def _take(self, group: Sequence[int], shares: Sequence[Share], answer: WindowAnswer) -> None:
        for index, share in zip(group, shares, strict=True):
            if share.redo is not None:
                self.doubts[index] = share.redo
                continue
            self.tempos[index] = len(share.text) / max(self.sounds[index].seconds, 1e-9)
            self.logprobs[index] = share.avg_logprob or 0.0
            if index in self.wanted:
                made = _packed_answer(share, answer, self.language)
                self.answers[index] = replace(made, redo=self.doubts.get(index))
                self.on_heard(self.sounds[index].seconds)

    def hear_alone(self) -> None:
        """What has no answer yet."""
        for index in sorted(self.wanted - set(self.answers)):
            self._hear_alone(index, self.doubts.get(index))
            self.on_heard(self.sounds[index].seconds)

    def hear_odd_ones(self) -> None:
        """Packed answers unlike the others: words of neighbours, words lost, or words guessed."""
        order = sorted(self.tempos)
        odd = dict.fromkeys(odd_confidences([self.logprobs[at] for at in order]), "odd_confidence")
        odd |= dict.fromkeys(odd_tempos([self.tempos[at] for at in order]), "odd_tempo")
        for position in sorted(odd):
            if (index := order[position]) in self.wanted:
                self._hear_alone(index, odd[position])

    def _hear_alone(self, index: int, redo: str | None) -> None:
        alone = self.listener.alone(self.sounds[index], self.language)
        self.answers[index] = replace(alone, redo=redo)


def _worth_another(group: Sequence[int], shares: Sequence[Share]) -> list[tuple[int, int]]:
    """Rank in the window, and position, of what may do better with other neighbours.

    Where the window gave nothing good, another one is not to be hoped for.
    """
    if all(share.redo is not None for share in shares):
        return []
    return [
        (rank, index)
        for rank, (index, share) in enumerate(zip(group, shares, strict=True))
        if share.redo in _WORTH_ANOTHER_WINDOW
    ]


def _packed_again(
    left: Sequence[tuple[int, int]], sounds: Sequence[Sound]
) -> list[tuple[int, ...]]:
    """Windows in which former neighbours are apart where there are others to put between."""
    order = [index for _, index in sorted(left)]
    if len(order) < _FEWEST_TO_PACK_AGAIN:
        return []
    groups = pack([sounds[index].seconds for index in order])
    return [tuple(order[at] for at in group) for group in groups]


def _packed_answer(share: Share, answer: WindowAnswer, language: str) -> Recognition:
    return Recognition(
        text=share.text,
        language=language,
        avg_logprob=share.avg_logprob,
        no_speech_prob=answer.no_speech_prob,
        compression_ratio=share.compression_ratio,
        temperature=0.0,
        way=PACKED,
    )


def _window_row(places: Sequence[Place], answer: WindowAnswer) -> dict[str, Any]:
    return {"places": [asdict(place) for place in places], **asdict(answer)}


def _window_from(row: Mapping[str, Any]) -> tuple[tuple[Place, ...], WindowAnswer]:
    texts = tuple(
        TimedText(**{**text, "logprobs": tuple(text["logprobs"])}) for text in row["texts"]
    )
    places = tuple(Place(**place) for place in row["places"])
    return places, WindowAnswer(texts, row["no_speech_prob"], row["ended"])


def _recognition_from(row: Mapping[str, Any]) -> Recognition:
    if not isinstance(row["text"], str):
        raise TypeError("text")
    return Recognition(**row)


def _languages_from(row: Mapping[str, Any]) -> dict[str, float]:
    return {code: float(probability) for code, probability in row.items()}
