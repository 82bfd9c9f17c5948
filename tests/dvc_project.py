"""A voice project under git and DVC, small enough to run its data stages in seconds."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from kamerton.cli.init import make_project
from kamerton.core.files import sha256_tree
from tests.clip_folder import sentence
from tests.recordings import bursts, paced, write_sound

DATA_STAGES = ["segment", "transcribe", "dataset", "analyze"]
RATE_HZ = 16_000
UTTERANCES = 3
PARAMS = {
    "text": {"language": "en"},
    "segment": {
        "detector": "energy",  # the test signal is no voice to the network
        "min_seconds": 1.0, "target_seconds": 2.5, "max_seconds": 8.0,
        "max_inner_pause_seconds": 0.3,
    },
    "transcribe": {"backend": "whisper", "model": "assets/toy-whisper"},
    "dataset": {"name": "small", "block_seconds": 4.0, "test_fraction": 0.2, "val_fraction": 0.2},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DvcProject:
    """A folder and the environment in which commands of the project run."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, fails: bool = False, **variables: str) -> str:
        """What a command prints; it must end well, or badly where it ``fails``."""
        environment = {**self.environment, **variables}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def dvc(self, *arguments: str, fails: bool = False, **variables: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, fails=fails, **variables)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def repro(self, *options: str) -> list[str]:
        """Bring the dataset's analysis up to date; returns the stages that had to run."""
        return re.findall(r"Running stage '(\w+)'", self.dvc("repro", "analyze", *options))

    def set_params(self, **sections: dict[str, object]) -> None:
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, values in sections.items():
            params[name] = {**params[name], **values}
        path.write_text(yaml.safe_dump(params), encoding="utf-8")

    def commit(self, message: str) -> str:
        """Commit what git sees; returns the revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def lose_data(self, *, cache: bool) -> None:
        """Remove what the stages made, and DVC's copy of it, as on a machine that never ran."""
        for name in ("data/clips", "data/dataset", "reports", ".kamerton"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("data/transcripts.jsonl", "data/analysis.json"):
            (self.folder / name).unlink(missing_ok=True)
        if cache:
            shutil.rmtree(self.folder / ".dvc/cache")
            shutil.rmtree(self.environment["DVC_SITE_CACHE_DIR"], ignore_errors=True)

    def hashes(self) -> dict[str, str]:
        """Everything that the data stages wrote, by hash of its bytes."""
        return {name: sha256_tree(self.folder / name) for name in ("data", "reports")}


def environment_for(folder: Path) -> dict[str, str]:
    """Of this process, less the user's own settings of git, DVC and S3."""
    settings = folder.with_name(f"{folder.name}-settings")
    settings.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "DVC_", "GIT_", "KAMERTON_"))
    }
    author = {"NAME": "Someone", "EMAIL": "someone@example.org"}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(settings),
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(settings / "dvc"),
        "DVC_SYSTEM_CONFIG_DIR": str(settings / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(settings / "dvc-site"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **{f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in author.items()},
    }


def add_recording(project: Path, number: int) -> None:
    """A recording of a few utterances and subtitles that say their words: no recogniser needed."""
    lengths, pauses = [1.9, 2.2, 1.7], [0.4, 0.7, 0.8, 0.5]
    spans, seconds = paced(lengths, pauses)
    wave = bursts(spans, seconds, RATE_HZ, seed=17 * number)
    path = project / f"data/raw/{number:02}.wav"
    write_sound(path, wave, RATE_HZ, subtype="PCM_16")
    cues = []
    for place, (start, end) in enumerate(spans):
        text = sentence(number * UTTERANCES + place, words=4)
        cues.append(f"{place + 1}\n{_time(start)} --> {_time(end)}\n{text}\n")
    path.with_suffix(".srt").write_text("\n".join(cues), encoding="utf-8")


def _time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"00:00:{whole:02},{milliseconds:03}"


def make_voice_project(repository: Path, folder: Path, *, recordings: int = 5) -> DvcProject:
    """What `kamerton init` makes, with recordings, their texts and parameters; not yet run."""
    for _ in make_project(folder, force=False):
        pass
    (folder / "assets").symlink_to(repository / "assets")
    for number in range(recordings):
        add_recording(folder, number)
    project = DvcProject(folder, environment_for(folder))
    project.set_params(**PARAMS)
    return project
