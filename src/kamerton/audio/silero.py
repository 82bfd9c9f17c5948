"""Where somebody speaks, as a small neural network hears it: silero's, run by onnxruntime.

The network tells speech from music, breath and doors, which no level can. It is the "sequence"
form of silero VAD 6, 1.2 MB, MIT licence, read from the wheel ``silero-vad`` without importing
that package, which would import torch. Its bytes are checked, because scores decide where
recordings are cut: another version would give other clips.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kamerton.audio.activity import FRAMES_PER_SECOND, frame_count
from kamerton.audio.resample import StreamResampler
from kamerton.core.errors import ToolMissingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "silero-vad==6.2.3"
_FILE = ("data", "silero_vad_16k_sequence.onnx")
_SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
INSTALL = f"pip install onnxruntime && pip install --no-deps {PACKAGE}"

# What the network takes: 32 ms at a time, each with the last 4 ms of what came before it.
_RATE_HZ = 16_000
_STEP_SAMPLES, _CONTEXT_SAMPLES = 512, 64
_STATE_SHAPE = (1, 1, 128)
_LATE_FRAMES = 4
_SLICE_FRAMES = 10_000
_BATCH_STEPS = 256  # 8 s a call: longer ones are no faster and take more memory
# It hears quiet speech badly, so streams are brought to the level of a close voice first.
_LOUD_RMS = 0.1  # what the louder steps of a batch shall have
_LOUD_QUANTILE = 0.9
_RELEASE = 0.7  # per batch: 20 dB in a minute, so that a pause is not turned up
_GAIN_LIMITS = (0.03, 300.0)

Detector = Literal["neural", "energy"]


class SileroDetector:
    """Speech probabilities of a stream at any rate, in constant memory but for the scores."""

    def __init__(self, rate_hz: int) -> None:
        self._session = _session()
        self._rate_hz = rate_hz
        self._resampler = StreamResampler(rate_hz, _RATE_HZ)
        self._samples = 0
        self._batch = np.zeros((_BATCH_STEPS, _CONTEXT_SAMPLES + _STEP_SAMPLES), dtype=np.float32)
        self._pending: list[NDArray[np.float32]] = []
        self._waiting = 0  # samples in pending
        self._context = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)
        self._loud = 0.0
        self._state = [np.zeros(_STATE_SHAPE, dtype=np.float32) for _ in range(2)]
        self._probabilities = array("f")

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""
        self._samples += len(block)
        self._take(self._resampler.feed(block))

    def finish(self) -> NDArray[np.float32]:
        """End the stream: one score per frame, (T,)."""
        self._take(self._resampler.finish())
        if self._waiting:
            steps = -(-self._waiting // _STEP_SAMPLES)
            wave = np.concatenate([*self._pending, np.zeros(_STEP_SAMPLES, dtype=np.float32)])
            self._run(wave[: steps * _STEP_SAMPLES])
            self._pending, self._waiting = [], 0
        frames = frame_count(self._samples, self._rate_hz)
        if not self._probabilities:  # less than one sample at the network's rate
            return np.zeros(frames, dtype=np.float32)
        scores = self._per_frame(frames)
        # It hears the beginning of speech at once and its end late.
        scores[:-_LATE_FRAMES] = np.minimum(scores[:-_LATE_FRAMES], scores[_LATE_FRAMES:])
        return scores

    def _per_frame(self, frames: int) -> NDArray[np.float32]:
        """The probabilities at the middle of each frame, (T,)."""
        scores = np.empty(frames, dtype=np.float32)
        values = np.frombuffer(self._probabilities, dtype=np.float32)
        middles = (np.arange(len(values)) + 0.5) * _STEP_SAMPLES / _RATE_HZ
        for start in range(0, frames, _SLICE_FRAMES):  # interp works in float64
            part = scores[start : start + _SLICE_FRAMES]
            times = (np.arange(start, start + len(part)) + 0.5) / FRAMES_PER_SECOND
            part[:] = np.interp(times, middles, values)
        return scores

    def _take(self, wave: NDArray[np.float32]) -> None:
        self._pending.append(wave)
        self._waiting += len(wave)
        size = _BATCH_STEPS * _STEP_SAMPLES
        if self._waiting < size:
            return
        whole = np.concatenate(self._pending)
        used = len(whole) - len(whole) % size
        for start in range(0, used, size):
            self._run(whole[start : start + size])
        self._pending, self._waiting = [whole[used:].copy()], len(whole) - used

    def _run(self, wave: NDArray[np.float32]) -> None:
        """Score whole steps; state and context carry over to the next call."""
        steps = wave.reshape(-1, _STEP_SAMPLES)
        steps = steps * self._gain(steps)
        batch = self._batch[: len(steps)]
        batch[:, _CONTEXT_SAMPLES:] = steps
        batch[0, :_CONTEXT_SAMPLES] = self._context
        batch[1:, :_CONTEXT_SAMPLES] = steps[:-1, -_CONTEXT_SAMPLES:]
        self._context = steps[-1, -_CONTEXT_SAMPLES:].copy()
        values, *self._state = self._session.run(
            ["speech_probs", "hn", "cn"],
            {"input": batch, "h": self._state[0], "c": self._state[1]},
        )
        self._probabilities.frombytes(np.asarray(values, dtype=np.float32).tobytes())

    def _gain(self, steps: NDArray[np.float32]) -> np.float32:
        power = np.einsum("ij,ij->i", steps, steps) / np.float32(_STEP_SAMPLES)
        loud = float(np.sqrt(np.quantile(power, _LOUD_QUANTILE)))
        self._loud = max(loud, _RELEASE * self._loud)
        return np.float32(np.clip(_LOUD_RMS / max(self._loud, 1e-9), *_GAIN_LIMITS))


@functools.cache
def _session() -> Any:
    """The network, loaded once per process, on one thread: sources are what runs in parallel."""
    # Read when it is loaded; without this it tells its makers of each use over the network.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolMissingError("onnxruntime", hint=INSTALL) from error
    path = model_path()
    if path is None:
        raise ToolMissingError("silero-vad", hint=INSTALL)
    data = path.read_bytes()
    if not _is_ours(data):
        raise ToolMissingError(f"{PACKAGE} (another version of it is here)", hint=INSTALL)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _is_ours(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == _SHA256


def model_path() -> Path | None:
    """Where the wheel put the network, or None; the package itself is not imported."""
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *_FILE)
        if path.is_file():
            return path
    return None


def choose_detector(wanted: Literal["auto", "neural", "energy"]) -> Detector:
    """What a parameter means on this machine: ``auto`` is neural where all it needs is here.

    Another version of the network than ours counts as none.

    Raises:
        ToolMissingError: neural is asked for and not installed, or not as it should be.
    """
    if wanted == "neural":
        _session()
    if wanted != "auto":
        return wanted
    path = model_path()
    installed = importlib.util.find_spec("onnxruntime") is not None and path is not None
    return "neural" if installed and path and _is_ours(path.read_bytes()) else "energy"
