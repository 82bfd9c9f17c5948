"""What DVC costs for one tar per recording, against the same clips as loose files (the baseline).

    python -m benchmarks.versioning [--recordings 200] [--clips 25]

Both hold the same bytes. Times are processor seconds of the DVC commands, measured in the same run;
a network remote adds a request per file. Ends with 1 if tars do not cost at most half in all.
"""

import argparse
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

CLIP_BYTES = 50_000  # about 2.5 seconds of speech as FLAC
MIN_RATIO = 2.0
Writer = Callable[[Path, int, list[bytes]], None]


def write_loose(folder: Path, recording: int, clips: list[bytes]) -> None:
    for number, clip in enumerate(clips):
        path = folder / f"{recording:08x}{number:08x}.flac"
        path.with_suffix(".new").write_bytes(clip)
        os.replace(path.with_suffix(".new"), path)


def write_tar(folder: Path, recording: int, clips: list[bytes]) -> None:
    path = folder / f"{recording:016x}.tar"
    with tarfile.open(path.with_suffix(".new"), "w") as tar:
        for number, clip in enumerate(clips):
            member = tarfile.TarInfo(f"{recording:08x}{number:08x}.flac")
            member.size = len(clip)
            tar.addfile(member, io.BytesIO(clip))
    os.replace(path.with_suffix(".new"), path)


def noise(recording: int, clips: int, *, version: int = 0) -> list[bytes]:
    """Clips that do not compress, equal for equal arguments."""
    source = random.Random(recording + 1_000_003 * version)
    return [source.randbytes(CLIP_BYTES) for _ in range(clips)]


class Project:
    """A DVC project without git, and what each command in it cost."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, dict[str, float]()
        self.clips = folder / "clips"
        self.clips.mkdir(parents=True)
        self.environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
        }
        self._dvc("init", "--no-scm", "--quiet")
        self._dvc("remote", "add", "--quiet", "--default", "store", str(folder / "store"))

    def _dvc(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, check=True
        )

    def measure(self, what: str, *arguments: str) -> None:
        """Run a DVC command and note its processor time."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._dvc(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        self.seconds[what] = spent
        print(f"{self.folder.name}: {what} {spent:.1f} s", file=sys.stderr)


def costs(folder: Path, write: Writer, recordings: int, clips: int) -> dict[str, float]:
    """Processor seconds by operation."""
    project = Project(folder)
    for recording in range(recordings):
        write(project.clips, recording, noise(recording, clips))
    project.measure("commit", "add", "--quiet", "clips")
    project.measure("status, nothing changed", "status", "--quiet")
    write(project.clips, 0, noise(0, clips, version=1))
    project.measure("commit one changed recording", "add", "--quiet", "clips")
    project.measure("push to a folder", "push", "--quiet")
    shutil.rmtree(project.clips)
    project.measure("checkout", "checkout", "--quiet")
    shutil.rmtree(project.clips)
    shutil.rmtree(project.folder / ".dvc/cache")
    project.measure("pull on an empty machine", "pull", "--quiet")
    return project.seconds


def main() -> int:
    """Print a line per operation, then the ratio of the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--clips", type=int, default=25, help="of each recording")
    arguments = parser.parse_args()
    sizes = arguments.recordings, arguments.clips
    with tempfile.TemporaryDirectory() as folder:
        loose = costs(Path(folder) / "loose", write_loose, *sizes)
        shutil.rmtree(Path(folder) / "loose")
        tars = costs(Path(folder) / "tars", write_tar, *sizes)
    print(f"{sizes[0]} recordings of {sizes[1]} clips, processor seconds of DVC")
    print(f"{'':<30} {'loose':>8} {'tars':>8} {'ratio':>7}")
    for what, seconds in loose.items():
        print(f"{what:<30} {seconds:>8.1f} {tars[what]:>8.1f} {seconds / tars[what]:>7.1f}")
    ratio = sum(loose.values()) / sum(tars.values())
    print(f"{'all':<30} {sum(loose.values()):>8.1f} {sum(tars.values()):>8.1f} {ratio:>7.1f}")
    if ratio < MIN_RATIO:
        print(f"missed: tars should cost at most 1/{MIN_RATIO:g} of loose files")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
