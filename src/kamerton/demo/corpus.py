"""The demo corpus: long recordings of one synthetic voice, made on the spot, and their truth.

Five recordings as people have them: several formats, rates and levels, room noise and mains hum,
names with spaces and letters outside ASCII. What was said when is written beside them, for scoring
only: no stage may read it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from kamerton.core.errors import ToolMissingError, UsageError
from kamerton.core.files import (
    read_json,
    remove_stale_partials,
    sha256_file,
    sha256_json,
    write_json,
)
from kamerton.core.progress import Progress, silent
from kamerton.demo import espeak, vocabulary
from kamerton.demo.truth import TRUTH_FILE, SpokenWord, TrueSentence, write_truth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FINGERPRINT_FILE: Final = "corpus.json"
RATE_WPM: Final = 155
SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 3.2  # of a sentence
COMMA_SHARE: Final = 0.04  # of the sentences: read with a pause of about 0.2 s inside
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.35, 1.2  # between sentences
_SECONDS_PER_SENTENCE = 3.1  # with its pause, on average
_SPARE = 1.6  # sentences read for each one needed; those of another length are left out
_FORMAT = 1  # raise it when the same seed should give another corpus


@dataclass(frozen=True, slots=True)
class Take:
    """How one recording was made; levels in dB of full scale (RMS; speech while it sounds)."""

    file: str
    rate_hz: int
    channels: int
    speech_dbfs: float
    noise_dbfs: float
    hum_dbfs: float
    hum_hz: float
    share: float  # of the corpus


TAKES: Final = (
    Take("evening reading.wav", 44100, 1, -21.0, -63.0, -80.0, 50.0, 0.21),
    Take("archive/tape 1.flac", 48000, 2, -27.0, -64.0, -62.0, 50.0, 0.19),
    Take("радио/утро.mp3", 44100, 1, -19.0, -58.0, -70.0, 50.0, 0.18),
    Take("archive/tape 2.flac", 48000, 2, -33.0, -72.0, -76.0, 60.0, 0.22),
    Take("müde Stimme.wav", 44100, 1, -24.0, -61.0, -66.0, 60.0, 0.20),
)


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What lies in the folder now; ``made`` is False when it was there already."""

    recordings: int
    sentences: int
    seconds: float
    speech_seconds: float
    made: bool
    fingerprint: str

    def describe(self) -> str:
        """One line for the terminal."""
        state = "made" if self.made else "there already"
        return (
            f"{self.recordings} recordings, {self.seconds / 60:.1f} minutes, "
            f"{self.sentences} sentences: {state}"
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """One sentence as the voice reads it; ``text`` is what the truth says."""

    text: str
    speech: espeak.Speech

    @property
    def seconds(self) -> float:
        """Length of the sentence."""
        return len(self.speech.wave) / espeak.SAMPLE_RATE_HZ


def make_corpus(
    recordings: Path,
    truth: Path,
    *,
    seed: int = 0,
    minutes: float = 12.0,
    force: bool = False,
    on_progress: Progress = silent,
) -> CorpusReport:
    """Write the recordings to ``recordings`` and what is said in them to ``truth``.

    The same seed and minutes give the same files. A corpus that is there already and whole is
    left alone. A killed call leaves either no fingerprint, and the next one starts again, or all.

    Args:
        recordings: folder for the audio; other people's files in it are never touched.
        truth: folder for ``truth.jsonl`` and the fingerprint.
        seed: which sentences, pauses and noise.
        minutes: length of all recordings together, give or take a sentence each.
        force: make it again although it is there.
        on_progress: called once for each recording.

    Raises:
        UsageError: ``recordings`` holds files that are not the demo's.
        ToolMissingError: the ``demo`` or ``audio`` extra is not installed.
    """
    if minutes <= 0:
        raise UsageError("a corpus of no length was asked for.", hint="give minutes above 0")
    fingerprint = sha256_json(
        {"format": _FORMAT, "seed": seed, "minutes": minutes, "takes": [asdict(t) for t in TAKES]}
    )
    _refuse_foreign_files(recordings)
    if not force and (report := _existing(recordings, truth, fingerprint)):
        return report
    recordings.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(recordings)
    staging = recordings.with_name(f".{recordings.name}.partial-{os.getpid()}")
    try:
        sentences, seconds = _record_all(staging, seed, minutes, on_progress)
        return _publish(staging, recordings, truth, sentences, seconds, fingerprint)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refuse_foreign_files(recordings: Path) -> None:
    ours = {take.file for take in TAKES}
    foreign = [
        path.relative_to(recordings).as_posix()
        for path in sorted(recordings.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    foreign = [name for name in foreign if name not in ours]
    if foreign:
        raise UsageError(
            f"{recordings} holds recordings that are not the demo's, such as {foreign[0]!r}.",
            hint="run the demo in another folder, or move your recordings out of the way",
        )


def _existing(recordings: Path, truth: Path, fingerprint: str) -> CorpusReport | None:
    """The report of a corpus that is there and whole: same fingerprint, all files, same sizes."""
    if not (truth / FINGERPRINT_FILE).is_file() or not (truth / TRUTH_FILE).is_file():
        return None
    card = read_json(truth / FINGERPRINT_FILE, produced_by="demo")
    if card.get("fingerprint") != fingerprint:
        return None
    for file in card["files"]:
        path = recordings / file["file"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return None
    return CorpusReport(
        recordings=len(card["files"]),
        sentences=card["sentences"],
        seconds=card["seconds"],
        speech_seconds=card["speech_seconds"],
        made=False,
        fingerprint=fingerprint,
    )


def _publish(
    staging: Path,
    recordings: Path,
    truth: Path,
    sentences: list[TrueSentence],
    seconds: float,
    fingerprint: str,
) -> CorpusReport:
    """Move the finished files into place; the fingerprint last, so that it never lies."""
    (truth / FINGERPRINT_FILE).unlink(missing_ok=True)
    files = []
    for take in TAKES:
        final = recordings / take.file
        final.parent.mkdir(parents=True, exist_ok=True)
        (staging / take.file).replace(final)
        size, digest = final.stat().st_size, sha256_file(final)
        files.append({"file": take.file, "bytes": size, "sha256": digest})
    write_truth(truth, sentences)
    report = CorpusReport(
        recordings=len(TAKES),
        sentences=len(sentences),
        seconds=seconds,
        speech_seconds=sum(sentence.seconds for sentence in sentences),
        made=True,
        fingerprint=fingerprint,
    )
    card = {key: value for key, value in asdict(report).items() if key != "made"}
    write_json(truth / FINGERPRINT_FILE, {**card, "files": files})
    return report


def _record_all(
    staging: Path, seed: int, minutes: float, on_progress: Progress
) -> tuple[list[TrueSentence], float]:
    random = np.random.default_rng(seed)
    readings = _readings(random, round(minutes * 60 / _SECONDS_PER_SENTENCE * _SPARE) + 8)
    sentences: list[TrueSentence] = []
    seconds = 0.0
    for done, take in enumerate(TAKES, start=1):
        voice, said = _read_aloud(take, readings, minutes * 60 * take.share, random)
        _write(staging / take.file, _in_the_room(voice, take, random), take.rate_hz)
        sentences += said
        seconds += len(voice) / espeak.SAMPLE_RATE_HZ
        on_progress(done, len(TAKES), take.file)
    return sentences, seconds


def _readings(random: np.random.Generator, at_a_time: int) -> Iterator[Reading]:
    """Read new sentences, ``at_a_time`` per process, and pass on those of the wanted length."""
    stream = vocabulary.sentences(random, part="corpus")
    while True:
        texts = [next(stream) for _ in range(at_a_time)]
        commas = random.random(at_a_time) < COMMA_SHARE
        items = [
            espeak.Utterance(_with_comma(text, random) if comma else text, rate_wpm=RATE_WPM)
            for text, comma in zip(texts, commas, strict=True)
        ]
        for text, speech in zip(texts, espeak.speak_all(items), strict=True):
            reading = Reading(text, speech)
            if SHORTEST_SECONDS <= reading.seconds <= LONGEST_SECONDS:
                yield reading


def _with_comma(text: str, random: np.random.Generator) -> str:
    words = text.split()
    at = int(random.integers(2, len(words) - 1))  # never so near an end that a word stands alone
    return " ".join(words[:at]) + ", " + " ".join(words[at:])


def _read_aloud(
    take: Take, readings: Iterator[Reading], seconds: float, random: np.random.Generator
) -> tuple[NDArray[np.float32], list[TrueSentence]]:
    """One long reading of about ``seconds``, at espeak's rate, and where each sentence lies."""
    parts = [_silence(random.uniform(0.6, 1.2))]
    position = len(parts[0])
    said = []
    while position < seconds * espeak.SAMPLE_RATE_HZ:
        reading = next(readings)
        said.append(_placed(reading, take.file, position / espeak.SAMPLE_RATE_HZ))
        gain = np.float32(10.0 ** (random.normal(scale=0.7) / 20.0))
        # Most pauses are short: 0.35 s to 1.2 s with a mean of 0.6 s.
        share = random.beta(1.4, 3.2)
        pause = SHORTEST_PAUSE_SECONDS + share * (LONGEST_PAUSE_SECONDS - SHORTEST_PAUSE_SECONDS)
        parts += [reading.speech.wave * gain, _silence(pause)]
        position += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts), said


def _placed(reading: Reading, source: str, at_seconds: float) -> TrueSentence:
    words = tuple(
        SpokenWord(
            word.word.strip(","),
            round(at_seconds + word.start_seconds, 4),
            round(at_seconds + word.end_seconds, 4),
        )
        for word in reading.speech.words
    )
    end = round(at_seconds + reading.seconds, 4)
    return TrueSentence(source, round(at_seconds, 4), end, reading.text, words)


def _silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * espeak.SAMPLE_RATE_HZ), dtype=np.float32)


def _in_the_room(
    voice: NDArray[np.float32], take: Take, random: np.random.Generator
) -> NDArray[np.float32]:
    """The voice at the take's rate and level with room noise and hum, (n, channels)."""
    try:
        import soxr
    except ImportError as error:
        raise ToolMissingError("soxr", extra="audio") from error

    speech = np.asarray(soxr.resample(voice, espeak.SAMPLE_RATE_HZ, take.rate_hz), np.float32)
    loud = speech[np.abs(speech) > 1e-3]
    speech *= np.float32(10.0 ** (take.speech_dbfs / 20.0) / np.sqrt(np.mean(loud**2)))
    channels = []
    for channel in range(take.channels):
        noise = _pink_noise(len(speech), take.rate_hz, random) * 10.0 ** (take.noise_dbfs / 20.0)
        hum = _hum(len(speech), take, random) * 10.0 ** (take.hum_dbfs / 20.0)
        channels.append(speech * (1.0 - 0.15 * channel) + noise + hum)
    return np.asarray(np.clip(np.stack(channels, axis=1), -1.0, 1.0), dtype=np.float32)


def _pink_noise(samples: int, rate_hz: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Noise of RMS 1 whose power falls by 3 dB an octave from 60 Hz on, as a quiet room's does."""
    from scipy import fft

    size = fft.next_fast_len(samples, real=True)
    spectrum = fft.rfft(random.standard_normal(size, dtype=np.float32))
    spectrum /= np.sqrt(np.maximum(fft.rfftfreq(size, 1.0 / rate_hz), 60.0))
    noise = fft.irfft(spectrum, size)[:samples]
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), dtype=np.float32)


def _hum(samples: int, take: Take, random: np.random.Generator) -> NDArray[np.float32]:
    """Mains hum of RMS 1 with its first harmonics."""
    time = np.arange(samples) / take.rate_hz
    hum = np.zeros(samples)
    for harmonic in (1, 2, 3, 5):
        phase = random.uniform(0.0, 2.0 * np.pi)
        hum += np.sin(2.0 * np.pi * take.hum_hz * harmonic * time + phase) / harmonic
    return np.asarray(hum / np.sqrt(np.mean(hum**2)), dtype=np.float32)


def _write(path: Path, wave: NDArray[np.float32], rate_hz: int) -> None:
    try:
        import soundfile
    except ImportError as error:
        raise ToolMissingError("soundfile", extra="audio") from error

    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = "MPEG_LAYER_III" if path.suffix == ".mp3" else "PCM_16"
    # libsndfile writes LAME's delay into the file, so decoders give the samples back unshifted.
    soundfile.write(str(path), wave, rate_hz, subtype=subtype)
