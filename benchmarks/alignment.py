"""How fast the demo's voice learns to read: unseen sentences aligned, and where it stops.

    python -m benchmarks.alignment PROJECT [--minutes 4] [--preset plain]

PROJECT is a folder in which the demo ran as far as its dataset (`make demo` here: the folder
itself). A fresh run with that project's parameters is trained on the training split, in a folder of
its own; what it exports reads the sentences of the validation and test splits, free-running. The
clock runs from the start of the command to the end of training, reading of the dataset and
evaluations included.

A sentence is aligned as ARCHITECTURE section 5 says: it ended by itself, diagonality and coverage
of at least 0.9, focus of at least 0.4. Where speech ends is measured in the spoken mel frames: the
last one less than 35 dB below the loudest. Clips keep some silence after their last word, which a
voice learns as well; a stop is right when the silence it leaves is within three decoder steps
(3 r frames) of what the training clips leave in the median, and the same sentences' own recordings
are shown beside it as the baseline, measured in the same way.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.mel import log_mel
from kamerton.config.loading import load_params
from kamerton.config.schema import AudioParams
from kamerton.data.manifest import Dataset, Row
from kamerton.metrics.alignment import FAILED, attention_scores
from kamerton.model.voice import Reading, Voice

LEAST_SENTENCES = 40
LEAST_STOPS = 0.95
TOLERANCE_STEPS = 3
END_OF_SPEECH_DB = 35.0  # below the loudest frame
SPLITS = ("val", "test")


@dataclass(frozen=True, slots=True)
class Judged:
    """One sentence read aloud: how it was attended to, and frames of silence after it."""

    text: str
    aligned: bool
    stopped: bool
    silence_frames: int


def silence_after(mel: NDArray[np.float32]) -> int:
    """Frames after the last one that is loud, of natural-log mel amplitudes (C, F)."""
    level_db = 10 * np.log10(np.exp(2 * mel.astype(np.float64)).sum(axis=0))
    loud = np.flatnonzero(level_db > level_db.max() - END_OF_SPEECH_DB)
    return int(mel.shape[1] - 1 - loud[-1])


def recorded_silence(dataset: Dataset, rows: list[Row], audio: AudioParams) -> NDArray[np.int64]:
    """The same of recordings, (clips,)."""
    return np.array([silence_after(log_mel(dataset.audio(row)[0], audio)) for row in rows])


def judge(reading: Reading) -> Judged:
    """How a sentence was read."""
    scores = attention_scores(reading.attention) if reading.stopped else FAILED
    return Judged(reading.text, scores.aligned, reading.stopped, silence_after(reading.mel))


def train(project: Path, folder: Path, preset: str) -> float:
    """Train as the project says, from nothing; returns the seconds it took."""
    command = [
        sys.executable, "-m", "kamerton", "train", "--params", "params.yaml",
        "--dataset", "data/dataset", "--analysis", "data/analysis.json",
        "--best-params", str(folder / "best_params.yaml"), "--model", str(folder / "voice"),
        "--report", str(folder / "training.html"), "--runs", str(folder / "runs"),
        "--set", "tracking.mlflow_uri=null", "--set", f"train.preset={preset}",
    ]  # fmt: skip
    (folder / "best_params.yaml").write_text("{}\n")
    start = time.monotonic()
    subprocess.run(command, cwd=project, check=True)
    return time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0, help="training may take so long")
    parser.add_argument("--preset", choices=("plain", "quality"), default="plain")
    asked = parser.parse_args()
    project = asked.project.resolve()
    params = load_params(project / "params.yaml")
    dataset = Dataset.open(project / "data" / "dataset")
    unseen = [row for split in SPLITS for row in dataset.rows(split)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = train(project, folder, asked.preset)
        voice = Voice.load(folder / "voice")
        readings = voice.read([row.text for row in unseen])
    judged = [judge(reading) for reading in readings]
    usual = float(np.median(recorded_silence(dataset, dataset.rows("train"), params.audio)))
    own = recorded_silence(dataset, unseen, params.audio)
    tolerance = TOLERANCE_STEPS * params.train.model.reduction_factor
    right = [item.stopped and abs(item.silence_frames - usual) <= tolerance for item in judged]
    aligned = sum(item.aligned for item in judged)
    print(f"trained for {seconds / 60:.1f} minutes, preset {asked.preset}")
    print(f"aligned, free-running: {aligned} of {len(judged)} unseen sentences")
    held_out = judged[-len(dataset.rows("test")) :]
    print(
        f"  of the test split, on which no checkpoint was chosen: "
        f"{sum(item.aligned for item in held_out)} of {len(held_out)}"
    )
    print(
        f"silence after speech, frames: {usual:.0f} in training clips; stops within "
        f"±{tolerance} of that: {sum(right)} of {len(right)} ({np.mean(right):.1%}); "
        f"their recordings: {np.mean(np.abs(own - usual) <= tolerance):.1%}"
    )
    for item, good in zip(judged, right, strict=True):
        if not (item.aligned and good):
            words = f"aligned {item.aligned}, stopped {item.stopped}, {item.silence_frames} frames"
            print(f"  {item.text!r}: {words}")
    checks = {
        f"trained within {asked.minutes:g} minutes": seconds <= 60 * asked.minutes,
        f"at least {LEAST_SENTENCES} unseen sentences aligned": aligned >= LEAST_SENTENCES,
        f"at least {LEAST_STOPS:.0%} stops right": np.mean(right) >= LEAST_STOPS,
    }
    for name, held in checks.items():
        print(f"{'PASS' if held else 'MISS'}  {name}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
