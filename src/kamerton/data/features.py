"""Log-mel frames of a whole dataset, computed once and mapped into memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
_NAME_DIGITS = 16
_VALUE_BYTES = 4


class MelCache:
    """The frames of every clip of a dataset, (F, C) float32 each, read-only.

    One file holds the frames of all clips one after the other; the operating system reads what is
    used and shares it between processes, such as the trials of a search. It is addressed by what
    the frames are computed from, so that it can never be out of date: the folder by the sounds,
    the audio parameters and our code, the frames in it by the hash of each sound. A dataset with
    other texts or splits of the same sounds uses the same frames, and one that has grown takes
    over those that it has in common with an earlier one.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        index = _Index.read(folder)
        self._folder = folder
        self._spans = {row.id: index.spans[row.audio_sha256] for row in dataset.rows()}
        self._frames = index.frames(folder)

    @classmethod
    def build(
        cls, cache: Path, dataset: Dataset, audio: AudioParams, *, on_progress: Progress = silent
    ) -> Self:
        """Open the cache of a dataset below ``cache``, computing what is not there yet.

        Raises:
            ParamsError: the clips have another sample rate than ``audio.sample_rate_hz``.
            InputCorruptError: a clip cannot be read, is empty, or has frames that are not finite.
        """
        recipe = sha256_json(
            {"audio": audio.model_dump(mode="json"), "code": inspect.getsource(mel)}
        )[:_NAME_DIGITS]
        sounds = sha256_json(sorted({row.audio_sha256 for row in dataset.rows()}))[:_NAME_DIGITS]
        folder = cache / f"mels-{recipe}-{sounds}"
        with file_lock(cache / ".lock"):
            if not _is_whole(folder):
                others = sorted(path.parent for path in cache.glob(f"mels-{recipe}-*/{_INDEX}"))
                known = _Known([other for other in others if _is_whole(other)])
                with output_directory(folder, force=True) as partial:
                    _write(partial, dataset, audio, known, on_progress)
        return cls(folder, dataset)

    def __getitem__(self, clip: str) -> NDArray[np.float32]:
        start, end = self._spans[clip]
        return self._frames[start:end]

    def frames(self, clip: str) -> int:
        """Number of frames of a clip."""
        start, end = self._spans[clip]
        return end - start

    def statistics(self, clips: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of every mel channel over the frames of ``clips``, (C,).

        Raises:
            InputCorruptError: a clip's frames are not finite: the file was damaged.
        """
        count, total, squares = 0, 0.0, 0.0
        for clip in clips:
            values = self[clip].astype(np.float64)
            if not np.isfinite(values).all():
                raise InputCorruptError(
                    self._folder, problem=f"clip {clip} has frames that are not finite",
                    hint="the file was damaged: remove this folder, it is computed anew",
                )  # fmt: skip
            count += len(values)
            total = total + values.sum(axis=0)
            squares = squares + np.square(values).sum(axis=0)
        mean = np.asarray(total) / count
        deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0.0))
        return mean.astype(np.float32), deviation.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the frames of each sound are, by the hash of its file: first and last + 1."""

    spans: Mapping[str, list[int]]
    channels: int

    @classmethod
    def read(cls, folder: Path) -> _Index:
        index = read_json(folder / _INDEX, produced_by="train")
        return cls(index["sounds"], int(index["channels"]))

    def frames(self, folder: Path) -> NDArray[np.float32]:
        mapped = np.memmap(folder / _FRAMES, dtype="<f4", mode="r")
        return mapped.reshape(-1, self.channels)


def _is_whole(folder: Path) -> bool:
    """Whether a cache is there with all its frames; one that was cut short is computed anew."""
    if not (folder / _INDEX).is_file():
        return False
    try:
        index = _Index.read(folder)
    except InputCorruptError:
        return False
    frames = max((end for _, end in index.spans.values()), default=0)
    file = folder / _FRAMES
    return file.is_file() and file.stat().st_size == frames * index.channels * _VALUE_BYTES


class _Known:
    """The frames that earlier caches of the same recipe hold."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._places: dict[str, tuple[NDArray[np.float32], list[int]]] = {}
        for folder in folders:
            index = _Index.read(folder)
            frames = index.frames(folder)
            self._places |= {sound: (frames, span) for sound, span in index.spans.items()}

    def find(self, sound: str) -> NDArray[np.float32] | None:
        if sound not in self._places:
            return None
        frames, (start, end) = self._places[sound]
        return frames[start:end]


def _write(
    folder: Path, dataset: Dataset, audio: AudioParams, known: _Known, on_progress: Progress
) -> None:
    rows = {row.audio_sha256: row for row in dataset.rows()}
    spans: dict[str, list[int]] = {}
    written = 0
    with (folder / _FRAMES).open("wb") as file:
        for done, (sound, row) in enumerate(rows.items(), start=1):
            frames = known.find(sound)
            if frames is None:
                frames = _compute(dataset, row, audio)
            file.write(np.ascontiguousarray(frames, dtype="<f4").tobytes())
            spans[sound] = [written, written + len(frames)]
            written += len(frames)
            on_progress(done, len(rows), "computing mel spectrograms")
    write_json(folder / _INDEX, {"sounds": spans, "channels": audio.mel_channels})


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
    frames = mel.log_mel(wave, audio).T
    if not np.isfinite(frames).all():
        raise InputCorruptError(
            f"{dataset.path} (clip {row.id})",
            problem=f"its sound, cut from {row.source}, gives mel values that are not finite",
            hint=f"mend or remove {row.source}, then cut it and make the dataset again: "
            "`kamerton segment --force`, `kamerton dataset --force`",
        )
    return frames
