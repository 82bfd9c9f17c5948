"""Folders of clips, transcripts and datasets as the stages write them, made on the spot."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from kamerton.config.schema import Params
from kamerton.data.shards import TarWriter
from kamerton.data.transcription import Recognition
from kamerton.stages.dataset import dataset

RATE_HZ = 16000
NO_SOUND = dict.fromkeys(("file", "offset_bytes", "size_bytes", "audio_sha256", "pcm_sha256"))
SOURCE_RATE_HZ = 44100
WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "letter",
    "morning",
    "silver",
    "market",
    "winter",
    "candle",
    "bridge",
    "forest",
]


def hum(seconds, pitch_hz=120.0, rate_hz=RATE_HZ, seed=0):
    """A buzz with the syllable rhythm of speech and a little noise: (samples,) float32."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * pitch_hz * h * time) / h for h in range(1, 12))
    rhythm = 0.55 + 0.45 * np.sin(2 * np.pi * 4.0 * time)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.12 * buzz * rhythm + 0.001 * noise).astype(np.float32)


def sentence(number, words=5):
    """A sentence that no other number has."""
    picked = [WORDS[(number * 7 + k * (1 + number % 5)) % len(WORDS)] for k in range(words - 1)]
    return " ".join([*picked, WORDS[number % len(WORDS)] + "s" * (number // len(WORDS))])


def flac(wave, rate_hz=RATE_HZ):
    """A wave as a 16-bit FLAC file in bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@dataclass
class ClipFolder:
    """Writes ``clips/`` and ``transcripts.jsonl`` below a folder, row by row."""

    folder: Path
    clips: list = field(default_factory=list)
    transcripts: list = field(default_factory=list)

    @property
    def clips_path(self):
        return self.folder / "clips"

    @property
    def transcripts_path(self):
        return self.folder / "transcripts.jsonl"

    def add(self, text, *, seconds=2.0, source="a.wav", wave=None, clip=None, answer=None):
        """Add a clip after the last one of its source; ``clip`` and ``answer`` change the rows."""
        number = len(self.clips)
        wave = hum(seconds, 110.0 + 3.0 * (number % 9), seed=number) if wave is None else wave
        clip_id = f"{number:016x}"
        end = max((c["end_sample"] for c in self.clips if c["source"] == source), default=0)
        start = end + SOURCE_RATE_HZ // 2
        seconds = len(wave) / RATE_HZ
        row = {
            "id": clip_id,
            **NO_SOUND,
            "source": source,
            "source_sha256": "ab" * 32,
            "start_sample": start,
            "end_sample": start + round(seconds * SOURCE_RATE_HZ),
            "sample_rate_hz": SOURCE_RATE_HZ,
            "duration_seconds": seconds,
            "snr_db": 30.0,
            "clipped_share": 0.0,
            "forced_cut": False,
            "status": "kept",
            "reasons": [],
        } | (clip or {})
        self.clips.append(row)
        if row["status"] == "kept":
            row |= self.put(clip_id, flac(wave))
        if text is not None:
            self.transcripts.append(
                {
                    "id": clip_id,
                    "text": text,
                    "language": "en",
                    "avg_logprob": -0.2,
                    "no_speech_prob": 0.01,
                    "compression_ratio": 1.1,
                    "temperature": 0.0,
                    "backend": "whisper",
                    "model": "toy",
                    "origin": "recognised",
                    "status": "kept",
                    "reasons": [],
                }
                | (answer or {})
            )
        return clip_id

    def put(self, clip_id, payload):
        """Give a clip a tar of its own; return the columns that say where its sound is."""
        tar = TarWriter(self.clips_path / f"audio/{clip_id}.tar")
        with tar:
            placement = tar.add(f"{clip_id}.flac", payload)
        try:
            pcm = soundfile.read(io.BytesIO(payload), dtype="int16")[0]
        except soundfile.SoundFileError:
            pcm = np.zeros(0, dtype=np.int16)
        return {
            "file": f"audio/{placement.shard}",
            "offset_bytes": placement.offset_bytes,
            "size_bytes": placement.size_bytes,
            "audio_sha256": hashlib.sha256(payload).hexdigest(),
            "pcm_sha256": hashlib.sha256(pcm.astype("<i4").tobytes()).hexdigest(),
        }

    def sound_of(self, clip_id):
        """The FLAC file of a clip as bytes."""
        row = next(row for row in self.clips if row["id"] == clip_id)
        data = (self.clips_path / row["file"]).read_bytes()
        return data[row["offset_bytes"] :][: row["size_bytes"]]

    def save(self):
        """Write both tables; return (clips, transcripts)."""
        self.clips_path.mkdir(parents=True, exist_ok=True)
        write_lines(self.clips_path / "clips.jsonl", self.clips)
        write_lines(self.transcripts_path, self.transcripts)
        return self.clips_path, self.transcripts_path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def read_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def corpus(folder, *, clips=24, sources=("a.wav", "b.wav"), seconds=2.0):
    """A clip folder of different sentences, ``clips`` in all, spread over the sources."""
    made = ClipFolder(folder)
    for number in range(clips):
        made.add(sentence(number), seconds=seconds, source=sources[number % len(sources)])
    made.save()
    return made


def small_blocks(**dataset_params):
    """Parameters under which a minute of clips is split in three."""
    values = {"block_seconds": 4.0, "test_fraction": 0.2, "val_fraction": 0.2} | dataset_params
    return Params().with_overrides({"dataset": values})


def make_dataset(folder, **options):
    """A dataset folder from ``corpus``; returns its path."""
    made = corpus(folder, **options)
    path = folder / "dataset"
    dataset(made.clips_path, made.transcripts_path, path, folder / "dataset.html", small_blocks())
    return path


class ScriptedRecogniser:
    """Gives prepared answers in order and remembers what it was made to hear."""

    def __init__(self, answers: Sequence[str | Recognition | Mapping[str, object]]) -> None:
        self.answers = list(answers)
        self.heard: list[np.ndarray] = []

    windows_at_once = 1

    def transcribe(self, waves, language=None):
        del language
        self.heard += waves
        return [self._answer() for _ in waves]

    def _answer(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Recognition):
            return answer
        values = {"text": answer} if isinstance(answer, str) else dict(answer)
        figures = {"avg_logprob": -0.2, "no_speech_prob": 0.01, "compression_ratio": 1.1}
        return Recognition(**{"language": "en", "temperature": 0.0, **figures, **values})
