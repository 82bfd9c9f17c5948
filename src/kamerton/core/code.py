"""Which version of our own code made a result."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import kamerton

# The packages whose code makes the numbers of a training run.
TRAINING = ("audio", "text", "data", "metrics", "model", "training")


def code_digest(packages: Iterable[str] = TRAINING) -> str:
    """SHA-256 over the sources of some of our packages; a change anywhere in them changes it."""
    root = Path(kamerton.__file__).parent
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
