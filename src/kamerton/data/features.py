"""Log-mel frames of a whole dataset, computed once and mapped into memory."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kamerton.audio import mel
from kamerton.config.schema import AudioParams
from kamerton.core.errors import InputCorruptError, ParamsError
from kamerton.core.files import file_lock, output_directory, read_json, sha256_json, write_json
from kamerton.core.progress import Progress, silent
from kamerton.data.manifest import Dataset, Row

_INDEX = "index.json"
_FRAMES = "frames.f32"


class MelCache:
    """The frames of every clip of a dataset, (F, C) float32 each, read-only.

    One file holds the frames of all clips one after the other; the operating system reads what is
    used and shares it between processes, such as the trials of a search.
    """

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / _INDEX, produced_by="train")
        self._spans: dict[str, list[int]] = index["clips"]
        shape = (-1, int(index["channels"]))
        self._frames = np.memmap(folder / _FRAMES, dtype="<f4", mode="r").reshape(shape)

    @classmethod
    def build(
        cls, cache: Path, dataset: Dataset, audio: AudioParams, *, on_progress: Progress = silent
    ) -> Self:
        """Open the cache of a dataset below ``cache``, computing it if it is not there yet.

        It is named by the dataset's content, the audio parameters and the code that computes the
        frames, so that it can never be out of date.

        Raises:
            ParamsError: the clips have another sample rate than ``audio.sample_rate_hz``.
            InputCorruptError: a clip cannot be read or is empty.
        """
        key = sha256_json(
            {
                "content": dataset.card["content_sha256"],
                "audio": audio.model_dump(mode="json"),
                "code": inspect.getsource(mel),
            }
        )
        folder = cache / f"mels-{key[:16]}"
        with file_lock(cache / ".lock"):
            if not (folder / _INDEX).is_file():
                with output_directory(folder, force=True) as partial:
                    _write(partial, dataset, audio, on_progress)
        return cls(folder)

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        start, end = self._spans[clip]
        return self._frames[start:end]

    def frames(self, clip: str) -> int:
        """Number of frames of a clip."""
        start, end = self._spans[clip]
        return end - start

    def statistics(self, clips: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of every mel channel over the frames of ``clips``, (C,)."""
        count, total, squares = 0, 0.0, 0.0
        for clip in clips:
            values = self[clip].astype(np.float64)
            count += len(values)
            total = total + values.sum(axis=0)
            squares = squares + np.square(values).sum(axis=0)
        mean = np.asarray(total) / count
        deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0.0))
        return mean.astype(np.float32), deviation.astype(np.float32)


def _write(folder: Path, dataset: Dataset, audio: AudioParams, on_progress: Progress) -> None:
    rows = dataset.rows()
    spans: dict[str, list[int]] = {}
    written = 0
    with (folder / _FRAMES).open("wb") as file:
        for done, row in enumerate(rows, start=1):
            frames = _compute(dataset, row, audio)
            file.write(np.ascontiguousarray(frames, dtype="<f4").tobytes())
            spans[row.id] = [written, written + len(frames)]
            written += len(frames)
            on_progress(done, len(rows), "computing mel spectrograms")
    write_json(folder / _INDEX, {"clips": spans, "channels": audio.mel_channels})


def _compute(dataset: Dataset, row: Row, audio: AudioParams) -> NDArray[np.float32]:
    wave, rate_hz = dataset.audio(row)
    if rate_hz != audio.sample_rate_hz:
        raise ParamsError(
            f"clip {row.id} has {rate_hz} Hz, audio.sample_rate_hz is {audio.sample_rate_hz}.",
            hint=f"set audio.sample_rate_hz to {rate_hz}, or segment again at the new rate",
        )
    if len(wave) <= audio.fft_samples // 2:
        raise InputCorruptError(
            f"{dataset.path} (clip {row.id})",
            problem=f"has {len(wave)} samples, less than half a Fourier window",
            hint="raise dataset.min_clip_seconds and run `kamerton dataset --force`",
        )
    return mel.log_mel(wave, audio).T
