"""A study with generations on the tiny corpus, as a process that tests can kill.

Usage: tiny_study.py FOLDER
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kamerton.core import code
from kamerton.stages.tune import TuneReport, tune
from tests.tiny_corpus import tiny_params, write_stage_inputs

SPACE = {"train.learning_rate": {"type": "loguniform", "low": 1e-3, "high": 1e-2}}
TUNE = {
    "trials": 2, "trial_steps": 40, "search_space": SPACE, "pruner": "none", "history": False,
    "generations": {"count": 2, "candidates": 3, "min_gain_sigmas": 0.0},
}  # fmt: skip


def run(folder: Path) -> TuneReport:
    """The study in ``folder``, begun or gone on with."""
    code.code_digest = lambda _packages: "0" * 64  # sources edited meanwhile make another study
    if not (folder / "dataset").exists():
        write_stage_inputs(folder, epochs=1000)
    return tune(
        folder / "dataset", folder / "analysis.json", folder / "best_params.yaml",
        folder / "trials.csv", folder / "tuning.html",
        tiny_params().with_overrides({"tune": TUNE}), runs=folder / "runs", force=True,
    )  # fmt: skip


if __name__ == "__main__":
    run(Path(sys.argv[1]))
