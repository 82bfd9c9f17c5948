"""The tune stage as a process that tests can kill, with a trainer that learns nothing.

Usage: tune_with_fake_trainer.py FOLDER PARAMS_JSON
"""

import json
import sys
from pathlib import Path

from kamerton.config.schema import Params
from kamerton.core import code
from kamerton.core.errors import PipelineError
from kamerton.smart_tuner import study
from kamerton.stages.tune import TuneReport, tune

FAKE_TRAINER = Path(__file__).parents[1] / "smart_tuner" / "fake_trainer.py"


def run(folder: Path, params: Params) -> TuneReport:
    # Not of the sources: they may be edited while a test runs.
    code.code_digest = lambda _packages: "0" * 64
    study.trainer_command = lambda _dataset, _analysis: [sys.executable, str(FAKE_TRAINER)]
    return tune(
        folder / "dataset",
        folder / "analysis.json",
        folder / "best_params.yaml",
        folder / "trials.csv",
        folder / "tuning.html",
        params,
        runs=folder / "runs",
        force=True,
    )


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]), Params.model_validate(json.loads(sys.argv[2])))
    except PipelineError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
