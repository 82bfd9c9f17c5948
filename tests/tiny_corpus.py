"""A dataset of chirps small enough to train on within a test."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from kamerton.config.schema import Params, TextParams
from kamerton.core.files import sha256_json, write_json, write_jsonl
from kamerton.data.shards import TarWriter

RATE_HZ = 8000
LETTERS = "abcdef"


def tiny_params(**train: object) -> Params:
    """A network and a budget that train in a second or two."""
    model = {
        "symbol_embedding": 16, "encoder_embedding_dim": 16, "encoder_convolutions": 1,
        "attention_rnn_dim": 16, "decoder_rnn_dim": 16, "attention_dim": 8, "location_filters": 4,
        "location_kernel": 5, "prenet_dim": 8, "postnet_dim": 16, "postnet_convolutions": 2,
        "reduction_factor": 3,
    }  # fmt: skip
    given = {
        "model": model, "max_steps": 12, "batch_size": 4, "eval_interval_steps": 5,
        "checkpoint_interval_steps": 4, "warmup_steps": 2, "threads": 1, "device": "cpu", **train,
    }  # fmt: skip
    audio = {
        "sample_rate_hz": RATE_HZ, "fft_samples": 256, "window_samples": 256, "hop_samples": 64,
        "mel_channels": 16, "mel_fmax_hz": 4000.0,
    }  # fmt: skip
    tracking = {"mlflow_uri": None, "tensorboard": False}
    return Params.model_validate({"audio": audio, "train": given, "tracking": tracking})


def write_tiny_dataset(folder: Path, *, train: int = 10, val: int = 3, test: int = 0) -> Path:
    """Every letter is a tone, every text a sequence of them; returns ``folder``."""
    random = np.random.default_rng(5)
    clips = []
    for index in range(train + val + test):
        split = "train" if index < train else "val" if index < train + val else "test"
        text = "".join(random.choice(list(LETTERS), size=int(random.integers(3, 7))))
        tones = [np.full(480, 300.0 + 400.0 * LETTERS.index(letter)) for letter in text]
        phase = 2 * np.pi * np.cumsum(np.concatenate(tones)) / RATE_HZ
        wave = (0.3 * np.sin(phase) + 0.002 * random.standard_normal(len(phase))).astype(np.float32)
        clips.append((split, text, wave))
    return write_dataset(folder, clips, RATE_HZ)


def write_dataset(
    folder: Path, clips: Sequence[tuple[str, str, NDArray[np.float32]]], rate_hz: int
) -> Path:
    """A dataset folder of (split, text, wave), as the dataset stage would write it."""
    payloads = []
    for _, _, wave in clips:
        buffer = io.BytesIO()
        soundfile.write(buffer, wave, rate_hz, format="FLAC", subtype="PCM_16")
        payloads.append(buffer.getvalue())
    names = [f"{index:016x}" for index in range(len(clips))]
    with TarWriter(folder / "shards" / "speaker.tar") as tar:
        places = [tar.add(f"{name}.flac", data) for name, data in zip(names, payloads, strict=True)]
    rows = []
    for name, place, data, (split, text, wave) in zip(names, places, payloads, clips, strict=True):
        rows.append(
            {
                "id": name, "shard": place.shard, "offset_bytes": place.offset_bytes,
                "size_bytes": place.size_bytes, "audio_sha256": hashlib.sha256(data).hexdigest(),
                "duration_seconds": round(len(wave) / rate_hz, 4), "sample_rate_hz": rate_hz,
                "text_raw": text, "text": text, "language": "en", "speaker": "speaker",
                "split": split, "source": "a.wav", "source_sha256": "0" * 64,
                "source_rate_hz": rate_hz, "start_sample": 0, "end_sample": len(wave),
                "snr_db": 30.0, "avg_logprob": -0.1,
            }
        )  # fmt: skip
    write_jsonl(folder / "manifest.jsonl", rows)
    splits = {
        split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")
    }
    card = {
        "name": "tiny", "content_sha256": sha256_json(rows), "clips": len(rows), "hours": 0.01,
        "language": "en", "speaker": "speaker", "sample_rate_hz": rate_hz, "splits": splits,
        "symbols": sorted(set("".join(text for _, text, _ in clips))), "rejected": {},
        "text": TextParams().model_dump(mode="json"),
    }  # fmt: skip
    write_json(folder / "dataset.json", card)
    return folder


def write_stage_inputs(folder: Path, *, epochs: int = 50) -> dict[str, Path]:
    """Everything that the train stage reads, and where it shall write, by port name."""
    write_tiny_dataset(folder / "dataset")
    analysis = {
        "recommended_epochs": epochs, "hours": 0.01, "quality": {"score": 0.8},
        "complexity": {"multiplier": 1.0},
    }  # fmt: skip
    (folder / "analysis.json").write_text(json.dumps(analysis))
    (folder / "best_params.yaml").write_text("# nothing better was found\n{}\n")
    return {
        "dataset": folder / "dataset", "analysis": folder / "analysis.json",
        "best_params": folder / "best_params.yaml", "model": folder / "model",
        "report": folder / "training.html",
    }  # fmt: skip
