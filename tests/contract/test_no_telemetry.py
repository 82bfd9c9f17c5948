"""Nothing that runs here tells anybody about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kamerton.audio.silero import model_path

ROOT = Path(__file__).parents[2]
VARIABLE = "ORT_DISABLE_TELEMETRY"


def test_the_detector_leaves_no_device_id(tmp_path: Path) -> None:
    """onnxruntime makes one in the user's cache before it first reports, unless told not to."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'vad')")
    if model_path() is None:
        pytest.skip("silero-vad is not installed: see `kamerton doctor`")
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment[name] = str(tmp_path)
    script = "from kamerton.audio.silero import SileroDetector; SileroDetector(16_000)"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["data", "train"])
def test_an_image_with_onnxruntime_forbids_it_to_report(name: str) -> None:
    text = (ROOT / "images" / name / "Containerfile").read_text(encoding="utf-8")
    assert f"{VARIABLE}=1" in text.rpartition("FROM ${BASE}")[2]
