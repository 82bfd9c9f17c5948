"""Which version of our own code made a result."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import kamerton

# The code that makes the numbers of a training run: what it is made of, and what steers it.
TRAINING = (
    "audio", "text", "data", "metrics", "model", "training", "stopping",
    "smart_tuner/early_stop.py", "smart_tuner/quality_controller.py",
    "smart_tuner/quality_issues.py", "smart_tuner/gradient_stability.py",
    "smart_tuner/batch_size.py", "tracking/quality.py", "tracking/hooks.py", "stages/steering.py",
    "config/changes.py", "config/phase_ends.py",
)  # fmt: skip


def code_digest(parts: Iterable[str] = TRAINING) -> str:
    """SHA-256 over some of our sources; a change anywhere in them changes it.

    A part is a package (``audio``) or a module (``data/cuts.py``), relative to ours.
    """
    root = Path(kamerton.__file__).parent
    digest = hashlib.sha256()
    for part in parts:
        place = root / part
        for path in [place] if place.suffix == ".py" else sorted(place.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
