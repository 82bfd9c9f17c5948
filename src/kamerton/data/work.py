"""The work on one recording: look at it, cut it, keep the result where the next run finds it.

A result depends on the recording's bytes, the parameters, our code and the versions of what it
calls, and on nothing else: not on its name, not on other recordings. It is a folder with
``result.json`` and, unless every clip was rejected, ``clips.tar``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamerton.audio.activity import FRAMES_PER_SECOND
from kamerton.audio.decode import AudioReadError, probe
from kamerton.audio.ffmpeg import ffmpeg_version
from kamerton.audio.files import encode_flac, to_int16
from kamerton.audio.formats import PASSING
from kamerton.audio.silero import choose_detector
from kamerton.core.cache import WorkCache
from kamerton.core.code import code_digest
from kamerton.core.environment import package_versions
from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json, remove_path, sha256_file, sha256_json, write_text
from kamerton.data.file_index import FileState, KnownFile, now_ns
from kamerton.data.segmentation import Clip, SegmentedSource, Tick, segment_source
from kamerton.data.shards import TarWriter
from kamerton.data.source_view import SourceView, view_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from kamerton.config.schema import AudioParams, Params, SegmentParams

KIND = "segment"  # of an entry of the work cache
# The code that a result depends on. Of the audio parameters only the rate of the clips matters.
CODE = (
    *("audio", "data/cuts.py", "data/hearing.py", "data/noise.py", "data/pauses.py"),
    *("data/segmentation.py", "data/shards.py", "data/source_view.py", "data/work.py"),
)
PASSES = 2  # each second of a recording is listened to, then cut: it counts twice as work
_FFMPEG = "ffmpeg"
RESULT_FILE, TAR_FILE = "result.json", "clips.tar"
_READ_ONLY = 0o444  # a kept file may be linked into many folders, and is the same in all
# What may change samples or cuts, besides our own code; the detector has packages of its own.
_PACKAGES = ("numpy", "scipy", "soundfile", "soxr")
_NEURAL_PACKAGES = ("onnxruntime", "silero-vad")

_PLACE = ("offset_bytes", "size_bytes", "audio_sha256", "pcm_sha256")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a recording gave no clips: a short code that can be counted by, and details."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def look_at(path: Path, _tick: Tick) -> KnownFile | Refusal:
    """Hash a recording and read from its header how long it claims to be."""
    seconds = 0.0
    try:
        try:
            header = probe(path)  # first, so that a pipe or a device is refused and not read
            seconds = (header.declared_frames or 0) / header.rate_hz
            for_ffmpeg = header.container == "FFMPEG"
        except AudioReadError as error:
            if error.reason in PASSING:
                return Refusal(error.reason, error.detail)
            for_ffmpeg = True
        looked, state = now_ns(), FileState.of(path)
        known = KnownFile(state, looked, sha256_file(path), seconds, for_ffmpeg)
        if FileState.of(path) != state:
            return Refusal("changed_while_reading")
    except OSError as error:
        return Refusal("not_readable", error.strerror or "")
    return known


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result depends on besides the recording, as one run has it for all of them."""

    segment: SegmentParams
    audio: AudioParams
    code_sha256: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, params: Params) -> Origin:
        """That of a run with these parameters, here and now."""
        detector = choose_detector(params.segment.detector)
        chosen = params.segment.model_copy(update={"detector": detector})
        return cls(chosen, params.audio, code_digest(CODE), _versions(detector))

    @property
    def detector(self) -> str:
        """What hears speech: never ``auto``, which may stand for another one elsewhere."""
        return self.segment.detector

    def parameters(self) -> dict[str, Any]:
        """The parameters that matter, as JSON."""
        rate = {"sample_rate_hz": self.audio.sample_rate_hz}
        return self.segment.model_dump(mode="json") | rate

    def key(self, file: KnownFile, *, whole: bool) -> str:
        """The name of a recording's result in the cache.

        Another ffmpeg makes only that new for which there is no other decoder.
        """
        versions = dict(self.versions)
        if not file.for_ffmpeg:
            versions.pop(_FFMPEG, None)
        return sha256_json([file.sha256, whole, self.parameters(), self.code_sha256, versions])


def _versions(detector: str) -> dict[str, str]:
    """The versions of what decodes, computes and hears here."""
    import soundfile

    names = _PACKAGES + (_NEURAL_PACKAGES if detector == "neural" else ())
    native = {"libsndfile": soundfile.__libsndfile_version__, _FFMPEG: ffmpeg_version()}
    return package_versions(names) | native


@dataclass(frozen=True, slots=True)
class Job:
    """One recording to be cut, into the cache or, without one, into a folder of its own."""

    path: Path
    file: KnownFile
    whole: bool
    origin: Origin
    cache: Path | None
    folder: Path

    @property
    def key(self) -> str:
        """The name of its result in the cache."""
        return self.origin.key(self.file, whole=self.whole)

    @property
    def place(self) -> Path:
        """Where its result is, once it is there."""
        if self.cache is None:
            return self.folder / self.key
        return WorkCache(self.cache).place(KIND, self.key)


def cut(job: Job, tick: Tick) -> Refusal | None:
    """Do the job; a refusal that may pass is returned, all else is found at the job's place."""
    try:
        if job.cache is not None:
            with WorkCache(job.cache).make(KIND, job.key) as folder:
                _cut_into(folder, job, tick)
                for path in folder.iterdir():
                    path.chmod(_READ_ONLY)
        else:
            remove_path(job.place)  # of a process that died at it
            job.place.mkdir(parents=True)
            _cut_into(job.place, job, tick)
    except AudioReadError as error:
        return Refusal(error.reason, error.detail)
    return None


def _cut_into(folder: Path, job: Job, tick: Tick) -> None:
    values: dict[str, Any]
    try:
        with contextlib.ExitStack() as stack:
            sounds = _Sounds(stack, folder / TAR_FILE, job.origin.audio.sample_rate_hz)
            done = segment_source(
                job.path,
                job.file.sha256,
                job.origin.segment,
                job.origin.audio,
                emit=sounds.add,
                tick=tick,
                whole=job.whole,
                scratch=folder,
            )
        values = {
            "source": _source_values(done, job.origin.detector),
            "clips": [_clip_values(clip, sounds.places.get(clip.id), done) for clip in done.clips],
            "view": view_source(done).as_dict(),
        }
    except AudioReadError as error:
        if error.reason in PASSING:
            raise
        values = {"refusal": [error.reason, error.detail]}
        (folder / TAR_FILE).unlink(missing_ok=True)
    if _state(job.path) != job.file.state:
        raise AudioReadError("changed_while_reading")
    tar = folder / TAR_FILE
    values["tar_state"] = _tar_state(tar) if tar.exists() else None
    write_text(folder / RESULT_FILE, json.dumps(values, ensure_ascii=False, allow_nan=False))


def _state(path: Path) -> FileState | None:
    try:
        return FileState.of(path)
    except OSError:
        return None


def _tar_state(tar: Path) -> list[int]:
    """What changes when somebody writes to it: its length in bytes and its time."""
    status = tar.stat()
    return [status.st_size, status.st_mtime_ns]


class _Sounds:
    """Puts clips into a tar, which is made with the first one, and notes where they are."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, rate_hz: int) -> None:
        self._stack, self._path, self._rate_hz = stack, path, rate_hz
        self._tar: TarWriter | None = None
        self.places: dict[str, dict[str, Any]] = {}

    def add(self, clip: Clip, wave: NDArray[np.float32]) -> None:
        payload = encode_flac(wave, self._rate_hz)
        if self._tar is None:
            self._tar = self._stack.enter_context(TarWriter(self._path))
        placement = self._tar.add(f"{clip.id}.flac", payload)
        pcm = to_int16(wave).astype("<i4").tobytes()
        self.places[clip.id] = {
            "offset_bytes": placement.offset_bytes,
            "size_bytes": placement.size_bytes,
            "audio_sha256": hashlib.sha256(payload).hexdigest(),
            "pcm_sha256": hashlib.sha256(pcm).hexdigest(),
        }


def _source_values(done: SegmentedSource, detector: str) -> dict[str, Any]:
    """The columns of sources.jsonl that follow from the bytes."""
    heard = done.analysis
    return {
        "sample_rate_hz": heard.rate_hz,
        "channels": heard.channels,
        "duration_seconds": round(heard.source_samples / heard.rate_hz, 6),
        "speech_seconds": int(done.mask.sum()) / FRAMES_PER_SECOND,
        "status": "read",
        "reasons": list(heard.warnings),
        "loudness_lufs": _finite(done.loudness_lufs),
        "gain_db": done.gain_db,
        "detector": detector,
    }


def _finite(loudness_lufs: float) -> float | None:
    return round(loudness_lufs, 2) if math.isfinite(loudness_lufs) else None


def _clip_values(
    clip: Clip, place: Mapping[str, Any] | None, done: SegmentedSource
) -> dict[str, Any]:
    """The columns of clips.jsonl that follow from the bytes."""
    return {
        "id": clip.id,
        **(place or dict.fromkeys(_PLACE)),
        "start_sample": clip.start_sample,
        "end_sample": clip.end_sample,
        "sample_rate_hz": done.analysis.rate_hz,
        "duration_seconds": clip.duration_seconds,
        "speech_seconds": clip.speech_seconds,
        "snr_db": clip.snr_db,
        "clipped_share": clip.clipped_share,
        "forced_cut": clip.forced_cut,
        "status": "rejected" if clip.reasons else "kept",
        "reasons": list(clip.reasons),
    }


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a recording, read back; ``tar`` is None where no clip was kept."""

    source: dict[str, Any]
    clips: list[dict[str, Any]]
    view: SourceView
    tar: Path | None


def find_result(job: Job) -> Result | Refusal | None:
    """The finished result of a job, or None; one that is damaged is removed."""
    place = job.place if job.cache is None else WorkCache(job.cache).find(KIND, job.key)
    if place is None or not place.is_dir():
        return None
    try:
        values = read_json(place / RESULT_FILE, produced_by="segment")
        if "refusal" not in values:
            return _result(values, place)
        return Refusal(*values["refusal"])
    except (PipelineError, OSError, KeyError, TypeError, ValueError):
        pass
    if job.cache is not None:
        WorkCache(job.cache).discard(KIND, job.key)
    return None


def _result(values: Mapping[str, Any], place: Path) -> Result:
    tar = None
    if values["tar_state"] is not None:
        tar = place / TAR_FILE
        if _tar_state(tar) != values["tar_state"]:
            raise ValueError(f"{tar} is not as it was")
    return Result(values["source"], values["clips"], SourceView.from_dict(values["view"]), tar)
