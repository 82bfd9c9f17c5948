"""Recordings whose pauses are known to the sample: espeak-ng in three languages, nine conditions.

A corpus is sentences with gaps of 0.15 to 2 s between them; its truth is read off the signal
before anything is added to it. A phrase is sound without a gap of 150 ms or more.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.resample import resample
from kamerton.data.cuts import runs
from kamerton.demo.espeak import SAMPLE_RATE_HZ, Utterance, speak_all

RATE_HZ = SAMPLE_RATE_HZ
FRAMES_PER_SECOND = 100
_PHRASE_GAP_FRAMES = 15
_AUDIBLE = 32 / 32768  # -60 dB: what is quieter in a clean recording is not sound
_GAP_SECONDS = (0.15, 2.0)
_ROOM_DB = -60.0  # no recording is digital silence

SENTENCES = {
    "en": (
        "The old lighthouse keeper walked slowly along the shore.",
        "Nobody had expected the train to leave so early in the morning.",
        "We counted seven boats, and three of them were painted green.",
        "She opened the letter and read it twice before she answered.",
        "A storm was coming from the north, so the birds were silent.",
        "Perhaps you should ask the gardener about the broken fence.",
        "It takes six hours to cross the mountains on foot.",
        "Fresh bread, soft cheese and a few apples would be enough.",
        "What happened to the pictures that used to hang in the hall?",
        "They first thought that the machine had stopped by itself.",
        "Keep the window shut until the smoke has passed.",
        "His brother plays the cello, though he hardly ever practises.",
    ),
    "de": (
        "Der alte Leuchtturmwärter ging langsam am Ufer entlang.",
        "Niemand hatte erwartet, dass der Zug so früh abfährt.",
        "Wir zählten sieben Boote, und drei davon waren grün gestrichen.",
        "Sie öffnete den Brief und las ihn zweimal, bevor sie antwortete.",
        "Ein Sturm zog von Norden herauf, und die Vögel schwiegen.",
        "Vielleicht solltest du den Gärtner nach dem Zaun fragen.",
        "Zu Fuß braucht man sechs Stunden über die Berge.",
        "Frisches Brot, weicher Käse und ein paar Äpfel genügen.",
        "Was ist mit den Bildern geschehen, die im Flur hingen?",
        "Zuerst glaubten sie, die Maschine sei von selbst stehen geblieben.",
        "Lass das Fenster zu, bis der Rauch verzogen ist.",
        "Sein Bruder spielt Cello, obwohl er kaum noch übt.",
    ),
    "ru": (
        "Старый смотритель маяка медленно шёл вдоль берега.",
        "Никто не ожидал, что поезд уйдёт так рано утром.",
        "Мы насчитали семь лодок, и три из них были зелёными.",
        "Она открыла письмо и прочла его дважды, прежде чем ответить.",
        "С севера надвигалась гроза, и птицы замолчали.",
        "Может быть, стоит спросить садовника про сломанный забор.",
        "Пешком через горы нужно идти шесть часов.",
        "Свежего хлеба, мягкого сыра и пары яблок будет достаточно.",
        "Что случилось с картинами, которые висели в коридоре?",
        "Сначала они подумали, что машина остановилась сама.",
        "Не открывай окно, пока дым не рассеется.",
        "Его брат играет на виолончели, хотя почти не занимается.",
    ),
}
VOICES = {"en": "en-us", "de": "de", "ru": "ru"}
# Three speakers of each, by the size of the head: played that much faster. (espeak-ng's own
# variants of a voice sound a little different every time it is started.)
_SIZES = (1.0, 1.16, 0.92)
_SENTENCES_PER_SPEAKER = 4


@dataclass(frozen=True, slots=True)
class Corpus:
    """One language: the clean samples at RATE_HZ and its phrases, seconds (P, 2)."""

    language: str
    clean: NDArray[np.float32]
    phrases: NDArray[np.float64]


@functools.cache
def make_corpus(language: str, utterances: int, seed: int = 7) -> Corpus:
    """Sentences read by three speakers with random tempo, pitch and gaps."""
    rng = np.random.default_rng([seed, len(language), ord(language[0])])
    sizes = [_SIZES[n // _SENTENCES_PER_SPEAKER % len(_SIZES)] for n in range(utterances)]
    items = [
        Utterance(
            SENTENCES[language][number % len(SENTENCES[language])],
            rate_wpm=round(rng.integers(120, 190) / size),
            pitch=int(rng.integers(35, 65)),
            voice=VOICES[language],
        )
        for number, size in enumerate(sizes)
    ]
    low, high = np.log(_GAP_SECONDS)
    parts = [np.zeros(RATE_HZ // 2, dtype=np.float32)]
    for speech, size in zip(speak_all(items), sizes, strict=True):
        wave = resample(speech.wave, round(size * RATE_HZ), RATE_HZ)
        gap = np.zeros(round(np.exp(rng.uniform(low, high)) * RATE_HZ), dtype=np.float32)
        parts += [0.5 * wave / np.abs(wave).max(), gap]
    clean = np.concatenate([*parts, np.zeros(RATE_HZ // 2, dtype=np.float32)])
    return Corpus(language, clean, phrases_of(clean))


def phrases_of(clean: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where there is sound, in seconds to the sample, gaps below 150 ms bridged, (P, 2)."""
    loud = np.flatnonzero(np.abs(clean) > _AUDIBLE)
    gaps = np.flatnonzero(np.diff(loud) >= _PHRASE_GAP_FRAMES * RATE_HZ // FRAMES_PER_SECOND)
    starts = loud[np.concatenate([[0], gaps + 1])]
    ends = loud[np.concatenate([gaps, [len(loud) - 1]])] + 1
    return np.stack([starts, ends], axis=1) / RATE_HZ


def speech_frames(phrases: NDArray[np.float64], frames: int) -> NDArray[np.bool_]:
    """The truth as a mask, (frames,): which 10 ms lie inside a phrase."""
    middles = (np.arange(frames) + 0.5) / FRAMES_PER_SECOND
    index = np.searchsorted(phrases[:, 0], middles, side="right") - 1
    return (index >= 0) & (middles < phrases[np.maximum(index, 0), 1])


def _power(clean: NDArray[np.float32]) -> float:
    """Of the sounding parts."""
    return float(np.mean(clean[np.abs(clean) > _AUDIBLE].astype(np.float64) ** 2))


def white(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.standard_normal(size)


def pink(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, size)


def hum(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mains hum: 50 Hz and what rectifiers make of it, to 1 kHz."""
    time = np.arange(size) / RATE_HZ
    phases = rng.uniform(0, 2 * np.pi, 20)
    return np.sum([np.sin(2 * np.pi * 50 * k * time + phases[k - 1]) / k for k in range(1, 21)], 0)


_BEAT_SECONDS = 0.5  # 120 beats a minute, a chord for every four
_CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))  # I vi IV V, in semitones above c


def music(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A band: chords, a bass, a tune that is picked, and drums."""
    beat = round(_BEAT_SECONDS * RATE_HZ)
    beats = -(-size // beat) + 8
    out = np.zeros((beats + 8) * beat)
    for number in range(beats):
        chord = _CHORDS[number // 4 % len(_CHORDS)]
        at = number * beat
        if number % 4 == 0:
            for note in chord:
                _add(out, at, _note(261.63 * 2 ** (note / 12), 4 * beat, 1.5, 6), 0.25)
        _add(out, at, _note(65.41 * 2 ** (chord[0] / 12), beat, 0.4, 8), 0.6)
        for half in (0, 1):
            pitch = 523.25 * 2 ** ((int(rng.choice(chord)) + 12 * int(rng.integers(0, 2))) / 12)
            _add(out, at + half * beat // 2, _note(pitch, beat, 0.25, 5), 0.3)
            _add(out, at + half * beat // 2, _drum(beat // 4, 0.02, rng), 0.25)
        if number % 2 == 0:
            time = np.arange(beat) / RATE_HZ
            kick = np.sin(2 * np.pi * (45 * time - 6 * np.exp(-time * 30))) * np.exp(-time * 14)
            _add(out, at, kick, 1.0)
        else:
            _add(out, at, _drum(beat // 2, 0.06, rng), 0.6)
    return out[:size]


def _note(pitch_hz: float, size: int, decay: float, overtones: int) -> NDArray[np.float64]:
    time = np.arange(size) / RATE_HZ
    harmonics = [k for k in range(1, overtones + 1) if k * pitch_hz < 0.45 * RATE_HZ]
    tone = np.sum([np.sin(2 * np.pi * k * pitch_hz * time) / k**1.3 for k in harmonics], 0)
    rise = np.minimum(1.0, time / 0.01)
    return tone * rise * np.exp(-time / decay) * np.minimum(1.0, time[::-1] / 0.02)


def _drum(size: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    noise = np.diff(rng.standard_normal(size + 1))  # brighter than white
    return noise * np.exp(-np.arange(size) / RATE_HZ / decay)


def _add(out: NDArray[np.float64], at: int, sound: NDArray[np.float64], gain: float) -> None:
    out[at : at + len(sound)] += gain * sound


def _with(
    make: Callable[[int, np.random.Generator], NDArray[np.float64]], snr_db: float
) -> Callable[[Corpus, np.random.Generator], NDArray[np.float64]]:
    """Noise so many dB below the sounding parts, on average."""

    def condition(corpus: Corpus, rng: np.random.Generator) -> NDArray[np.float64]:
        noise = make(len(corpus.clean), rng)
        scale = np.sqrt(_power(corpus.clean) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
        return corpus.clean + scale * noise

    return condition


def _breath(corpus: Corpus, rng: np.random.Generator) -> NDArray[np.float64]:
    """A breath of noise, 28 dB below the voice, in every gap that has room for one."""
    out = corpus.clean.astype(np.float64)
    level = np.sqrt(_power(corpus.clean)) * 10 ** (-28 / 20)
    for (_, end), (start, _) in zip(corpus.phrases[:-1], corpus.phrases[1:], strict=True):
        length = min(0.45, start - end - 0.2)
        if length < 0.15:
            continue
        sound = pink(round(length * RATE_HZ), rng)
        sound *= level / np.sqrt(np.mean(sound**2)) * np.hanning(len(sound)) * 1.6
        _add(out, round((end + start - length) / 2 * RATE_HZ), sound, 1.0)
    return out


def _clipped(corpus: Corpus, _rng: np.random.Generator) -> NDArray[np.float64]:
    """Recorded 15 dB too loud."""
    return np.clip(corpus.clean * 10 ** (15 / 20), -0.5, 0.5).astype(np.float64)


CONDITIONS: dict[str, Callable[[Corpus, np.random.Generator], NDArray[np.float64]]] = {
    "clean": lambda corpus, _rng: corpus.clean.astype(np.float64),
    "white 20": _with(white, 20.0),
    "white 10": _with(white, 10.0),
    "pink 10": _with(pink, 10.0),
    "hum 15": _with(hum, 15.0),
    "music 10": _with(music, 10.0),
    "breath": _breath,
    "clipped": _clipped,
    "-30 dB": lambda corpus, _rng: corpus.clean * 10 ** (-30 / 20),
}


def recording(corpus: Corpus, condition: str, seed: int = 11) -> NDArray[np.float32]:
    """The corpus as recorded under a condition, in a room 60 dB below the voice."""
    rng = np.random.default_rng([seed, *condition.encode()])
    heard = CONDITIONS[condition](corpus, rng)
    level = np.sqrt(_power(corpus.clean)) * (10 ** (-30 / 20) if condition == "-30 dB" else 1.0)
    heard = heard + level * 10 ** (_ROOM_DB / 20) * rng.standard_normal(len(heard))
    return (heard / max(1.0, float(np.abs(heard).max()) / 0.99)).astype(np.float32)


def mask_spans(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A mask of 10 ms frames as spans in seconds, (S, 2)."""
    return np.stack(runs(mask), axis=1) / FRAMES_PER_SECOND
