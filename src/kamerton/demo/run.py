"""The demo: recordings made on the spot, then the same `dvc repro` that a user runs."""

import os
import subprocess
import sys
from pathlib import Path

from kamerton.config.loading import load_params
from kamerton.core.errors import InputMissingError, PipelineError
from kamerton.core.files import read_json
from kamerton.core.progress import Progress, silent

RECORDINGS = Path("data/raw")
TRUTH = Path("data/truth")
SAMPLE = Path("voice.wav")
SAMPLE_TEXT = "every golden horse visits another quiet village"
CORPUS_SEED = 2026
CORPUS_MINUTES = 12.0


def make_recordings(project: Path, *, force: bool = False, on_progress: Progress = silent) -> str:
    """Make the demo corpus below ``project`` unless it is there; say which."""
    from kamerton.demo.corpus import make_corpus

    report = make_corpus(
        project / RECORDINGS,
        project / TRUTH,
        seed=CORPUS_SEED,
        minutes=CORPUS_MINUTES,
        force=force,
        on_progress=on_progress,
    )
    return report.describe()


def reproduce(project: Path) -> None:
    """Bring every stage up to date with `dvc repro`, its output passed through.

    Raises:
        PipelineError: a stage failed; its own message stands above.
        KeyboardInterrupt: it was interrupted, and has ended.
    """
    if not (project / "dvc.yaml").exists():
        raise InputMissingError(
            project / "dvc.yaml",
            produced_by="you",
            hint="run the demo in the root of the repository",
        )
    # The stages are commands named `kamerton`: let them be found without an activated environment.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    code = _wait(
        subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=project,
            env={**os.environ, "PATH": path},
        )
    )
    if code != 0:
        raise PipelineError(
            f"dvc repro ended with {code}; the stage that failed says why above.",
            hint="mend that and run the same command again: finished stages are kept",
        )


def _wait(child: "subprocess.Popen[bytes]") -> int:
    """The exit code of ``child``, which is not killed when we are interrupted.

    A terminal interrupts the stage too, and a training that is told to stop saves first.
    """
    interrupted = False
    while True:
        try:
            code = child.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return code


def speak_sample(project: Path) -> Path | None:
    """A sentence spoken by the champion, made anew only when the champion is another."""
    from kamerton.serving.synthesizer import speak

    promotion = project / "promotion.json"
    version = read_json(promotion, produced_by="promote").get("version")
    if version is None:
        return None
    sample = project / SAMPLE
    if not sample.exists() or sample.stat().st_mtime < promotion.stat().st_mtime:
        speak(SAMPLE_TEXT, sample, model=None, params=load_params(project / "params.yaml"))
    return sample
