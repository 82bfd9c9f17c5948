"""How others cut, for comparison, and our two ways through the function that the stage calls.

The three detectors are followed by the same greedy packing, as their users write it: join stretches
of speech until a clip is full, cut where nothing else helps.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.segmentation_metrics import Cutting
from benchmarks.segmentation_truth import FRAMES_PER_SECOND, RATE_HZ, mask_spans
from kamerton.audio.resample import resample
from kamerton.config.schema import AudioParams, SegmentParams
from kamerton.data.cuts import speech_mask
from kamerton.data.segmentation import segment_source

LIMITS = SegmentParams()
_FIXED_SECONDS = 10.0
_VAD_RATE_HZ = 16_000
_PAD_SECONDS = 0.1


def fixed(wave: NDArray[np.float32], _path: Path) -> Cutting:
    """Every ten seconds."""
    edges = np.append(np.arange(0.0, len(wave) / RATE_HZ, _FIXED_SECONDS), len(wave) / RATE_HZ)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return Cutting(spans, edges[1:-1], spans[:, 0], spans[:, 1])


def librosa_split(wave: NDArray[np.float32], _path: Path) -> Cutting:
    """librosa.effects.split, 40 dB below the loudest, and greedy packing."""
    import librosa

    return _greedy(librosa.effects.split(wave, top_db=40) / RATE_HZ, len(wave) / RATE_HZ)


def webrtcvad(wave: NDArray[np.float32], _path: Path) -> Cutting:
    """WebRTC's detector, mode 2, 10 ms at a time, and greedy packing."""
    import webrtcvad as package

    sound = resample(wave, RATE_HZ, _VAD_RATE_HZ)
    data = np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2").tobytes()
    vad, step = package.Vad(2), 2 * _VAD_RATE_HZ // FRAMES_PER_SECOND
    heard = [
        vad.is_speech(data[start : start + step], _VAD_RATE_HZ)
        for start in range(0, len(data) - step + 1, step)
    ]
    return _packed(np.array(heard, dtype=np.float32), len(wave))


def silero(wave: NDArray[np.float32], _path: Path) -> Cutting:
    """Silero's probabilities above one half, and greedy packing."""
    return _packed(silero_scores(wave), len(wave))


def silero_scores(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's own probabilities as they are, one per 10 ms, whole recording at once."""
    import onnxruntime

    from kamerton.audio.silero import model_path

    sound = resample(wave, RATE_HZ, _VAD_RATE_HZ)
    steps = np.pad(sound, (0, -len(sound) % 512)).reshape(-1, 512)
    before = np.concatenate([np.zeros((1, 64), dtype=np.float32), steps[:-1, -64:]])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_path(), options, providers=["CPUExecutionProvider"]
    )
    state = np.zeros((1, 1, 128), dtype=np.float32)
    inputs = {"input": np.concatenate([before, steps], axis=1), "h": state, "c": state}
    (values,) = session.run(["speech_probs"], inputs)
    frames = np.arange(len(sound) * FRAMES_PER_SECOND // _VAD_RATE_HZ)
    return np.asarray(values)[np.minimum(frames * 160 // 512, len(values) - 1)]


def _packed(scores: NDArray[np.float32], samples: int) -> Cutting:
    mask = speech_mask(scores, round(LIMITS.min_pause_seconds * FRAMES_PER_SECOND))
    return _greedy(mask_spans(mask), samples / RATE_HZ)


def _greedy(spans: NDArray[np.float64], seconds: float) -> Cutting:
    """Join while the clip stays within the maximum; what alone exceeds it is cut at it."""
    joined: list[list[float]] = []
    for start, end in spans.tolist():
        near = joined and start - joined[-1][1] <= LIMITS.max_inner_pause_seconds
        if near and end - joined[-1][0] <= LIMITS.max_seconds - 2 * _PAD_SECONDS:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    longest = LIMITS.max_seconds - 2 * _PAD_SECONDS
    pieces = [
        [at, min(at + longest, end)]
        for start, end in joined
        for at in np.arange(start, end, longest).tolist()
    ]
    kept = []
    for number, (start, end) in enumerate(pieces):
        earlier = pieces[number - 1][1] if number else -1.0
        later = pieces[number + 1][0] if number + 1 < len(pieces) else seconds + 1.0
        low = max(start - _PAD_SECONDS, (earlier + start) / 2, 0.0)
        high = min(end + _PAD_SECONDS, (end + later) / 2, seconds)
        if high - low >= LIMITS.min_seconds:
            kept.append((low, high, start, end))
    rows = np.array(kept).reshape(-1, 4)
    return Cutting(rows[:, :2], rows[:, :2].ravel(), rows[:, 2], rows[:, 3])


def ours(detector: str) -> Callable[[NDArray[np.float32], Path], Cutting]:
    """The function that the segment stage calls, on a file."""
    segment = SegmentParams.model_validate({"detector": detector, "min_snr_db": -20.0})

    def cut(_wave: NDArray[np.float32], path: Path) -> Cutting:
        done = segment_source(
            path, "0" * 64, segment, AudioParams(), emit=lambda _clip, _wave: None
        )
        rate_hz, spans = done.analysis.rate_hz, mask_spans(done.mask)
        kept = np.array(
            [(c.start_sample, c.end_sample) for c in done.clips if not c.reasons]
        ).reshape(-1, 2)
        limits = kept / rate_hz
        # The mask says where speech begins and ends; clips have margins around it.
        starts = [_first(spans[:, 0], low, high, last=False) for low, high in limits]
        ends = [_first(spans[:, 1], low, high, last=True) for low, high in limits]
        return Cutting(
            limits,
            limits.ravel(),
            np.array(starts),
            np.array(ends),
            forced=sum(clip.forced_cut for clip in done.clips),
        )

    return cut


def _first(edges: NDArray[np.float64], low: float, high: float, *, last: bool) -> float:
    """The first or last edge inside a clip, or its limit where it was cut without a pause."""
    inside = edges[(edges >= low - 1e-9) & (edges <= high + 1e-9)]
    if not len(inside):
        return high if last else low
    return float(inside[-1] if last else inside[0])


METHODS: dict[str, Callable[[NDArray[np.float32], Path], Cutting]] = {
    "fixed 10 s": fixed,
    "librosa.split": librosa_split,
    "webrtcvad": webrtcvad,
    "silero": silero,
    "ours, energy": ours("energy"),
    "ours, neural": ours("neural"),
}
