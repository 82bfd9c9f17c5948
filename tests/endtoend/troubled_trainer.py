"""A trainer that meets one trouble; run as a program: TROUBLE FOLDER.

It makes the trouble itself, at the steps named below, so that it comes at the same step each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kamerton.core.errors import StoppedError
from tests.endtoend.trainers import run_of, train_here

BEGINS, ENDS = 60, 150  # steps
DISK = "12m"


class FullDisk:
    """A disk that another program fills at one step and empties at another."""

    def __init__(self, folder: Path) -> None:
        self.tracking: dict[str, Any] = {"tensorboard": True}
        self._folder = folder
        self._ballast = folder / "runs" / "ballast"
        (folder / "runs").mkdir()
        _mount("size=" + DISK, folder / "runs")

    def step(self, step: int) -> None:
        if step == BEGINS:
            with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
        if step == ENDS:
            self._ballast.unlink()

    def close(self) -> None:
        """Bring the run out of the disk, which goes with this process."""
        shutil.copytree(self._folder / "runs", self._folder / "kept" / "runs")


class ClosedMlflow:
    """An MLflow server that was never there."""

    def __init__(self, folder: Path) -> None:
        self.tracking: dict[str, Any] = {"mlflow_uri": "http://127.0.0.1:9"}

    def step(self, step: int) -> None:
        """Nothing happens."""

    def close(self) -> None:
        """Nothing is left."""


class _Answers(BaseHTTPRequestHandler):
    """Just enough of MLflow's protocol for one run to be recorded."""

    def _answer(self) -> None:
        info = {
            "run_id": "1", "run_uuid": "1", "experiment_id": "1", "status": "RUNNING",
            "start_time": 0, "lifecycle_stage": "active", "artifact_uri": "file:///dev/null/none",
        }  # fmt: skip
        experiment = {"experiment_id": "1", "name": "kamerton", "lifecycle_stage": "active",
                      "artifact_location": "file:///dev/null/none"}  # fmt: skip
        run = {"info": info, "data": {}, "inputs": {}}
        body = json.dumps({"experiment": experiment, "run": run, "run_info": info}).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class DyingMlflow:
    """An MLflow server that goes away in the middle of the run."""

    def __init__(self, folder: Path) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        self._server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.tracking: dict[str, Any] = {
            "mlflow_uri": f"http://127.0.0.1:{self._server.server_port}"
        }

    def step(self, step: int) -> None:
        if step == BEGINS:
            while not self._server.asked:  # type: ignore[attr-defined]
                threading.Event().wait(0.05)  # the client takes seconds to import
            self._server.shutdown()
            self._server.server_close()

    def close(self) -> None:
        """Nothing is left."""


class ReadOnlyTensorBoard:
    """A TensorBoard folder that became read-only while the run was stopped."""

    def __init__(self, folder: Path) -> None:
        self.tracking: dict[str, Any] = {"tensorboard": True}
        train_here_stopped(folder, self.tracking)
        _mount("ro", run_of(folder) / "tensorboard")

    def step(self, step: int) -> None:
        """Nothing more happens."""

    def close(self) -> None:
        """Nothing is left."""


def train_here_stopped(folder: Path, tracking: dict[str, Any]) -> None:
    """Begin the run and stop it by a signal."""

    def stop(done: float, total: float, note: str = "") -> None:
        if done == BEGINS:
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(StoppedError):
        train_here(folder, {}, tracking, on_progress=stop)


def _mount(options: str, place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


TROUBLES = {
    "full_disk": FullDisk,
    "mlflow_closed": ClosedMlflow,
    "mlflow_dies": DyingMlflow,
    "tensorboard_read_only": ReadOnlyTensorBoard,
}


def main() -> None:
    """Train with the trouble that the command line names."""
    import torch

    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    trouble = TROUBLES[sys.argv[1]](folder)

    def step(done: float, total: float, note: str = "") -> None:
        trouble.step(int(done) if total > 100 else -1)  # spectrograms are progress too

    train_here(folder, {}, trouble.tracking, on_progress=step)
    trouble.close()


if __name__ == "__main__":
    main()
