"""The demo's speaker: espeak-ng, called as a library that a wheel brings along.

espeak-ng is GPL-3 and optional (extra ``demo``); nothing else in the project needs it. The library
carries hidden state (flutter, noise) from one utterance to the next that nothing resets, not even
terminating it. So :func:`speak_all` reads a list of texts in a process of its own: the same list
then gives the same samples, whatever was said before. This module is that process's program too.
"""

from __future__ import annotations

import ctypes
import io
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kamerton.core.errors import PipelineError, ToolMissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 22050
VOICE: Final = "en-us"

# Names of espeak-ng's speak_lib.h, version 1.52.
_OUTPUT_SYNCHRONOUS = 2  # espeak_Synth returns when all samples have been handed over
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD = 0, 1
_IPA = 2
_SILENCE = 32  # of 32768: what is quieter at either end is not speech


@dataclass(frozen=True, slots=True)
class Utterance:
    """A text and how to read it.

    ``rate_wpm`` is the tempo (80..450 words a minute), ``pitch`` 0..100 with 50 the voice's own,
    ``pitch_range`` 0 (monotone) to 100 (lively); ``voice`` a name that espeak-ng knows, with a
    variant if wanted (``en-us+f3``).
    """

    text: str
    rate_wpm: int = 150
    pitch: int = 50
    pitch_range: int = 50
    voice: str = VOICE


@dataclass(frozen=True, slots=True)
class WordTime:
    """When a word sounds, in seconds from the start of the utterance."""

    word: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken text: mono samples (n,) at SAMPLE_RATE_HZ and the time of each word."""

    wave: NDArray[np.float32]
    words: tuple[WordTime, ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, counted from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Engine:
    """The loaded library, with the callback that collects what it says."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self._samples: list[NDArray[np.int16]] = []
        self._starts: list[tuple[int, int, int]] = []  # text position, characters, sample
        self._callback = _Callback(self._collect)  # kept: the library holds only a pointer to it
        data = espeakng_loader.get_data_path()
        rate = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE_HZ:
            raise OSError(f"its data at {data} cannot be used (it answered {rate})")
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, item: Utterance) -> Speech:
        encoded = item.text.encode()
        self._set_voice(item.voice)
        settings = (
            (_RATE, item.rate_wpm),
            (_PITCH, item.pitch),
            (_RANGE, item.pitch_range),
            (_VOLUME, 100),
        )
        for number, value in settings:
            status = self._library.espeak_SetParameter(number, value, 0)
            _check(status, f"parameter {number} = {value}")
        self._samples, self._starts = [], []
        size = len(encoded) + 1
        status = self._library.espeak_Synth(encoded, size, 0, 1, 0, _CHARS_UTF8, None, None)
        _check(status, f"the text {item.text!r}")
        _check(self._library.espeak_Synchronize(), f"the text {item.text!r}")
        return _trimmed(item.text, self._samples, self._starts)

    def phonemes(self, item: Utterance) -> str:
        self._set_voice(item.voice)
        convert = self._library.espeak_TextToPhonemes
        convert.restype = ctypes.c_char_p
        pointer = ctypes.c_char_p(item.text.encode())
        spoken = convert(ctypes.byref(pointer), _CHARS_UTF8, _IPA)
        return str((spoken or b"").decode()).strip()

    def _set_voice(self, voice: str) -> None:
        _check(self._library.espeak_SetVoiceByName(voice.encode()), f"the voice {voice!r}")

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_WORD:
                self._starts.append((event.text_position - 1, event.length, event.sample))
            index += 1
        return 0  # 1 would stop the synthesis


def _check(status: int, what: str) -> None:
    if status != 0:
        raise ValueError(f"espeak-ng refused {what} (status {status})")


def _trimmed(
    text: str, parts: list[NDArray[np.int16]], starts: list[tuple[int, int, int]]
) -> Speech:
    """Drop the silence at both ends and find each word's time.

    A word lasts from its event to the last sound before the next one's: the pause at a comma
    belongs to no word.
    """
    wave = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    loud = np.flatnonzero(np.abs(wave.astype(np.int32)) > _SILENCE)
    if loud.size == 0 or not starts:
        raise ValueError(f"espeak-ng said nothing for {text!r}")
    begin, end = int(loud[0]), int(loud[-1]) + 1
    firsts = [begin, *(sample for _, _, sample in starts[1:])]
    lasts = [int(loud[np.searchsorted(loud, edge) - 1]) + 1 for edge in [*firsts[1:], end]]
    words = tuple(
        WordTime(
            text[at : at + size],
            (first - begin) / SAMPLE_RATE_HZ,
            (last - begin) / SAMPLE_RATE_HZ,
        )
        for (at, size, _), first, last in zip(starts, firsts, lasts, strict=True)
    )
    return Speech(wave[begin:end].astype(np.float32) / 32768.0, words)


def speak_all(items: Sequence[Utterance]) -> list[Speech]:
    """Read every text aloud, in order; the same list gives the same samples.

    Raises:
        ToolMissingError: the ``demo`` extra is not installed.
        PipelineError: espeak-ng refused a voice or a text.
    """
    with np.load(io.BytesIO(_run("speak", items)), allow_pickle=False) as answer:
        samples, ends = answer["samples"], np.cumsum(answer["sizes"])
        words = json.loads(answer["words"].item())
    return [
        Speech(
            samples[end - size : end].astype(np.float32) / 32768.0,
            tuple(WordTime(**word) for word in spoken),
        )
        for end, size, spoken in zip(ends, np.diff(ends, prepend=0), words, strict=True)
    ]


def phonemes(items: Sequence[Utterance]) -> list[str]:
    """How espeak-ng would say each text, in IPA. Raises as :func:`speak_all`."""
    return [str(line) for line in json.loads(_run("phonemes", items))]


def _run(task: str, items: Sequence[Utterance]) -> bytes:
    child = subprocess.run(
        [sys.executable, "-m", "kamerton.demo.espeak", task],
        input=json.dumps([asdict(item) for item in items]).encode(),
        capture_output=True,
        check=False,
    )
    if child.returncode == 0:
        return child.stdout
    reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if child.returncode == ToolMissingError.exit_code:
        raise ToolMissingError(f"espeak-ng ({reason})", extra="demo")
    raise PipelineError(
        f"The demo voice could not be synthesised: {reason or child.returncode}.",
        hint="check the voice's name and that no text is blank",
    )


def _answer(task: str) -> int:
    """Body of the child process: JSON on stdin, npz or JSON on stdout, a reason on stderr."""
    items = [Utterance(**item) for item in json.load(sys.stdin)]
    try:
        engine = _Engine()
    except (ImportError, OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return ToolMissingError.exit_code
    try:
        if task == "phonemes":
            sys.stdout.write(json.dumps([engine.phonemes(item) for item in items]))
        else:
            _write_speech([engine.speak(item) for item in items])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _write_speech(spoken: list[Speech]) -> None:
    waves = [np.round(speech.wave * 32768.0).astype(np.int16) for speech in spoken]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        samples=np.concatenate(waves) if waves else np.zeros(0, np.int16),
        sizes=np.array([len(wave) for wave in waves], dtype=np.int64),
        words=np.array(json.dumps([[asdict(w) for w in speech.words] for speech in spoken])),
    )
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    raise SystemExit(_answer(sys.argv[1]))
