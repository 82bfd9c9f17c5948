"""What this machine has and lacks for the stages."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

MIN_FREE_BYTES = 5 * 2**30
SECRETS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "KFP_TOKEN",
    "KFP_TOKEN_FILE",
    "KFP_COOKIE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "WANDB_API_KEY",
    "TELEGRAM_BOT_TOKEN",
    "SLACK_WEBHOOK",
    "KAMERTON_ALERT_WEBHOOK",
    "SMTP_PASSWORD",
)
# (module, distribution, extra, what for, whether the stages cannot do without it)
_PACKAGES = (
    ("soundfile", "soundfile", "audio", "reading and writing sound", True),
    ("scipy", "scipy", "audio", "signal processing", True),
    ("soxr", "soxr", "audio", "resampling", True),
    ("torch", "torch", "train", "training and synthesis", True),
    ("safetensors", "safetensors", "train", "exported models", True),
    ("optuna", "optuna", "tune", "tuning", True),
    ("mlflow", "mlflow", "track", "tracking and the registry", True),
    ("dvc", "dvc", "pipeline", "dvc repro", True),
    ("jiwer", "jiwer", "eval", "word error rate", True),
    ("pystoi", "pystoi", "eval", "STOI", True),
    ("matplotlib", "matplotlib", "report", "reports", True),
    ("onnxruntime", "onnxruntime", "vad", "silero's voice detector", False),
    ("faster_whisper", "faster-whisper", "asr", "transcription with faster-whisper", False),
    ("pesq", "pesq", "eval", "PESQ", False),
    ("kfp", "kfp", "kubeflow", "compiling and submitting the pipeline", False),
    ("dvc_s3", "dvc-s3", "s3", "datasets on S3 and the like", False),
    ("espeakng_loader", "espeakng-loader", "demo", "the demo corpus", False),
)
_SILERO_PURPOSE = "cutting in music and noise (segment.detector: neural)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: fine, worth knowing, or in the way."""

    name: str
    status: Literal["ok", "note", "FAIL"]
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For ``--json``."""
        return asdict(self)


def _package(module: str, distribution: str, extra: str, purpose: str, *, needed: bool) -> Finding:
    if importlib.util.find_spec(module) is not None:
        return Finding(distribution, "ok", f"{metadata.version(distribution)}, {purpose}")
    fix = f"pip install 'kamerton[{extra}]'"
    return Finding(distribution, "FAIL" if needed else "note", f"missing: {purpose}", fix)


def _whisper() -> Finding:
    if importlib.util.find_spec("whisper") is not None:
        return Finding("openai-whisper", "ok", metadata.version("openai-whisper"))
    fix = "pip install 'kamerton[whisper]' && pip install --no-deps openai-whisper"
    return Finding("openai-whisper", "note", "missing: transcription with backend whisper", fix)


def _silero() -> Finding:
    from kamerton.audio.silero import INSTALL, model_path

    path = model_path()
    if path is not None:
        return Finding("silero-vad", "ok", f"{metadata.version('silero-vad')}, {_SILERO_PURPOSE}")
    return Finding("silero-vad", "note", f"missing: {_SILERO_PURPOSE}", INSTALL)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "ok", version)
    return Finding("python", "FAIL", version, "use Python 3.11, 3.12 or 3.13")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "note", "unknown without torch")
    import torch

    if torch.cuda.is_available():
        return Finding("gpu", "ok", torch.cuda.get_device_name(0))
    note = "none: training a full-size voice takes weeks on a processor"
    return Finding("gpu", "note", note, "train on a machine with a CUDA device, or a reduced model")


def _program(name: str, purpose: str, fix: str) -> Finding:
    path = shutil.which(name)
    return (
        Finding(name, "ok", purpose) if path else Finding(name, "note", f"missing: {purpose}", fix)
    )


def _dvc_remote(project: Path) -> Finding:
    if not (project / ".dvc").is_dir():
        return Finding("dvc project", "note", "this folder is none", "kamerton init my-voice")
    if importlib.util.find_spec("dvc") is None:
        return Finding("dvc remote", "note", "unknown without dvc")
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "list"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    if names:
        return Finding("dvc remote", "ok", ", ".join(names))
    return Finding(
        "dvc remote", "note", "none: datasets stay on this disk", "dvc remote add -d NAME URL"
    )


def _disk(project: Path) -> Finding:
    free = shutil.disk_usage(project).free
    detail = f"{free / 2**30:.0f} GiB free"
    if free >= MIN_FREE_BYTES:
        return Finding("disk", "ok", detail)
    return Finding("disk", "note", detail, "free some: checkpoints and the DVC cache need space")


def _secrets() -> Finding:
    """Which secrets are set; never their values."""
    present = [name for name in SECRETS if os.environ.get(name)]
    return Finding("secrets set", "ok" if present else "note", ", ".join(present) or "none")


def diagnose(project: Path) -> list[Finding]:
    """Look at everything the stages use, from the folder ``project``."""
    return [
        _python(),
        *(_package(*package[:4], needed=package[4]) for package in _PACKAGES),
        _whisper(),
        _silero(),
        _gpu(),
        _program("git", "revision of the code in every run", "install git"),
        _program("ffmpeg", "recordings that libsndfile cannot read", "install ffmpeg"),
        _program("espeak-ng", "phonemes (text.phonemes: espeak)", "apt-get install espeak-ng"),
        _dvc_remote(project),
        _disk(project),
        _secrets(),
    ]
