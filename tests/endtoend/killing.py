"""Kill every stage of a project with SIGKILL in turn, then DVC itself, and bring it to its end.

As a program, on a clone whose environment is set up (takes a little longer than the demo):

    python tests/endtoend/killing.py PROJECT [--reference FINISHED_PROJECT]

With a reference (a project that ran undisturbed) it compares the datasets and the voices by hash
and ends with 1 when they differ.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kamerton.core.files import sha256_tree

STAGES = ("segment", "transcribe", "dataset", "analyze", "tune", "train", "evaluate", "promote")
POLL_SECONDS = 0.05
COMPARED = ("data/clips", "data/dataset", "models/voice")


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what was hit, and the training step that was on disk then (None: none yet)."""

    target: str
    exit_code: int
    checkpoint_step: int | None


def _processes() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            yield int(folder.name), words


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return found


def _find(root: int, words: tuple[str, ...]) -> int | None:
    """The process below ``root`` whose command line has ``words`` in a row (and is no shell)."""
    family = _descendants(root)
    for pid, command in _processes():
        names = [Path(word).name for word in command]
        if pid in family and names and names[0] not in {"sh", "bash", "dash", "zsh"}:
            for start in range(len(names) - len(words) + 1):
                if tuple(names[start : start + len(words)]) == words and "--trial" not in command:
                    return pid
    return None


def _runs(project: Path) -> list[Path]:
    """Run directories of the voice itself (a trial's have another parent), oldest first."""
    return sorted(path.parent for path in project.glob("runs/*/status.json"))


def checkpoint_step(project: Path) -> int | None:
    """The step of the newest run's last status, if it saved any."""
    for run in reversed(_runs(project)):
        if (run / "checkpoints/last.pt").exists():
            return int(json.loads((run / "status.json").read_text())["step"])
    return None


def run_and_kill(
    command: list[str], project: Path, words: tuple[str, ...], ready: Callable[[], bool]
) -> Kill:
    """Start ``command`` and kill the process of these words with SIGKILL once ``ready()``.

    Raises:
        AssertionError: the command ended before there was anything to kill.
    """
    with subprocess.Popen(command, cwd=project, start_new_session=True) as main:
        target = None
        while main.poll() is None:
            target = _find(main.pid, words)
            if target is not None and ready():
                os.kill(target, signal.SIGKILL)
                break
            time.sleep(POLL_SECONDS)
        else:
            raise AssertionError(f"{' '.join(words)} never ran (the command ended by itself)")
        code = main.wait()
    return Kill(" ".join(words), code, checkpoint_step(project))


def _at_work(project: Path, seconds: float) -> Callable[[], bool]:
    """True once an output is half written, or ``seconds`` after the first call."""
    first: list[float] = []

    def ready() -> bool:
        first.append(time.monotonic())
        half = any(any(project.glob(f"{folder}.*.partial-*")) for folder in ("", "*/"))
        return half or first[-1] - first[0] >= seconds

    return ready


def kill_each_stage(
    command: list[str], project: Path, *, after_seconds: float, more_steps: int
) -> list[Kill]:
    """Kill all stages in turn, then DVC during training; the caller runs ``command`` to the end.

    Training is killed once a checkpoint is there, and DVC once training is ``more_steps`` further.
    """
    kills = []
    for stage in STAGES:
        ready = _at_work(project, after_seconds)
        if stage == "train":
            ready = lambda: (checkpoint_step(project) or 0) > 0  # noqa: E731
        kills.append(run_and_kill(command, project, ("kamerton", stage), ready))
        if stage == "train":
            before = checkpoint_step(project) or 0
            further = lambda: (checkpoint_step(project) or 0) >= before + more_steps  # noqa: B023, E731
            kills.append(run_and_kill(command, project, ("dvc", "repro"), further))
    return kills


def hashes(project: Path) -> dict[str, str]:
    """What must not depend on kills."""
    return {name: sha256_tree(project / name) for name in COMPARED}


def main() -> int:
    """Run as a program; see the top."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--reference", type=Path)
    arguments = parser.parse_args()
    project = arguments.project.resolve()
    command = ["make", "demo"]
    for kill in kill_each_stage(command, project, after_seconds=1.0, more_steps=100):
        print(kill, flush=True)
    subprocess.run(command, cwd=project, check=True)
    ours = hashes(project)
    print(json.dumps(ours, indent=2))
    if arguments.reference:
        theirs = hashes(arguments.reference.resolve())
        same = ours == theirs
        print("equal to the undisturbed run" if same else f"DIFFERS from {theirs}")
        return 0 if same else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
