"""A real study, disturbed on purpose: trials, a kill, pruning, generations, and a recovery.

    python -m benchmarks.real_study PROJECT [--trials 6] [--steps 160]

PROJECT is a project in which `dvc repro analyze` was run, for example the demo. Everything is done
in a folder of its own, which is kept; nothing in PROJECT changes. Ends with 1 where something that
must show does not.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from kamerton.tracking.metrics_file import Record, read_records
from kamerton.tracking.run_directory import list_runs

POLL_SECONDS = 0.2
KILL_IN_TRIALS = (0, 2)  # from 0: one that is never pruned, and one with two finished before it
CALM_STEPS = 150  # trained before the learning rate is made huge
HUGE_LEARNING_RATE = 0.1


def main() -> int:
    arguments = _arguments()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="kamerton-study-"))
    work.mkdir(parents=True, exist_ok=True)
    print(f"working in {work}", flush=True)
    params = _params(arguments, work)
    begun = time.monotonic()
    before = _tune_with_kills(arguments.project, work, params)
    rows = _study_rows(work)
    rows.append(_same_runs_row(before, _trial_runs(work)))
    rows += _recovery_rows(arguments.project, work, params)
    rows += _mlflow_rows(work)
    print("\n| must show | found | holds |\n| --- | --- | --- |")
    for what, found, holds in rows:
        print(f"| {what} | {found} | {'yes' if holds else 'NO'} |")
    print(f"\n{time.monotonic() - begun:.0f} s; the report is {work / 'tuning.html'}")
    return 0 if all(holds for _, _, holds in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--work", type=Path, help="folder to work in (default: a new one)")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--steps", type=int, default=160, help="steps of each trial")
    return parser.parse_args()


def _params(arguments: argparse.Namespace, work: Path) -> Path:
    """The project's parameters with a study that shows everything."""
    params: dict[str, Any] = yaml.safe_load((arguments.project / "params.yaml").read_text())
    params["tune"] = {
        "trials": arguments.trials, "trial_steps": arguments.steps, "startup_trials": 3,
        "sampler": "tpe", "pruner": "successive_halving", "seed": 7, "history": False,
        "generations": {"count": 2, "candidates": 2},
        "search_space": {
            # Wide on purpose: some of it learns nothing in so few steps, and is pruned.
            "train.learning_rate": {"type": "float", "low": 1e-6, "high": 4e-3, "log": True},
            "train.guided_attention_weight": {
                "type": "float", "low": 1.0, "high": 20.0, "log": True,
            },
        },
    }  # fmt: skip
    params["tracking"] = {"mlflow_uri": f"sqlite:///{work / 'mlflow.db'}"}
    path = work / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def _command(project: Path, work: Path, params: Path, stage: str, *more: str) -> list[str]:
    data = ["--dataset", str((project / "data/dataset").resolve()),
            "--analysis", str((project / "data/analysis.json").resolve())]  # fmt: skip
    common = ["--params", str(params), "--runs", str(work / "runs"), "--quiet"]
    return [sys.executable, "-m", "kamerton", stage, *data, *common, *more]


def _tune_with_kills(project: Path, work: Path, params: Path) -> list[dict[int, list[str]]]:
    """Kill the tuner in the middle of some trials, each time run it again.

    Returns:
        The runs that there were of each finished trial at each kill.
    """
    outputs = ["--best-params", str(work / "best_params.yaml"),
               "--trials", str(work / "trials.csv"),
               "--report", str(work / "tuning.html")]  # fmt: skip
    command = _command(project, work, params, "tune", *outputs)
    known = []
    for number in KILL_IN_TRIALS:
        tuner = subprocess.Popen(command, cwd=work)
        try:
            while not _is_under_way(work, number):
                if tuner.poll() is not None:
                    raise SystemExit(f"the tuner ended with {tuner.returncode} before its kill")
                time.sleep(POLL_SECONDS)
        finally:
            if tuner.poll() is None:
                os.kill(tuner.pid, signal.SIGKILL)
            tuner.wait()
        print(f"killed the tuner in trial {number + 1}", flush=True)
        known.append({trial: runs for trial, runs in _trial_runs(work).items() if trial < number})
    subprocess.run(command, cwd=work, check=True)
    return known


def _trial_runs(work: Path) -> dict[int, list[str]]:
    """The names of each trial's run directories."""
    return {
        int(folder.parent.name): [run.path.name for run in list_runs(folder)]
        for folder in sorted((work / "runs/studies").glob("*/trials/*/runs"))
    }


def _same_runs_row(
    before: list[dict[int, list[str]]], after: dict[int, list[str]]
) -> tuple[str, str, bool]:
    """Whether what was finished before a kill is what is there at the end, each one run."""
    finished = before[-1]
    same = all(after.get(number) == runs for kill in before for number, runs in kill.items())
    single = all(len(runs) == 1 for runs in after.values())
    found = f"{len(finished)} finished before a kill, {len(after)} trials of one run each: {single}"
    return "no finished trial is made again", found, bool(finished) and same and single


def _is_under_way(work: Path, number: int) -> bool:
    """Whether a trial was evaluated once: it is in the middle of its work."""
    for folder in (work / "runs/studies").glob(f"*/trials/{number:03d}/runs"):
        for run in list_runs(folder):
            if any("val_mel_loss" in record.values for record in read_records(run.metrics_file)):
                return True
    return False


def _study_rows(work: Path) -> list[tuple[str, str, bool]]:
    with (work / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    states = [row["state"] for row in trials]
    pruned = sum(state == "pruned" for state in states)
    numbers = [int(row.get("trial", row.get("number", "-1"))) for row in trials]
    resumed = [
        record
        for folder in (work / "runs/studies").glob(f"*/trials/{KILL_IN_TRIALS[0]:03d}/runs")
        for run in list_runs(folder)
        for record in read_records(run.metrics_file)
        if record.name == "resumed"
    ]
    tree = next((work / "runs/studies").glob("*/generations.json"), None)
    generations = yaml.safe_load(tree.read_text()) if tree else {}
    done = generations.get("generations", [])
    page = (work / "tuning.html").read_text()
    labels = [f"g{one['number']}c{item['number']}" for one in done for item in one["candidates"]]
    missing = [label for label in labels if label not in page]
    return [
        ("trials", f"{len(trials)}: {', '.join(states)}", len(trials) >= 5),
        ("each once, in order, after kill -9", str(numbers), numbers == sorted(set(numbers))),
        ("a killed trial went on", f"resumed at step {[r.step for r in resumed]}", bool(resumed)),
        ("pruned", str(pruned), pruned >= 1),
        ("generations", str(len(done)), len(done) >= 2),
        ("candidates in the report", ", ".join(labels), bool(labels) and not missing),
    ]


def _recovery_rows(project: Path, work: Path, params: Path) -> list[tuple[str, str, bool]]:
    """Stop a calm run, go on with a huge learning rate, and see what the recovery makes of it."""
    runs = work / "recovery"
    steps = ["train.max_steps=400", "train.eval_interval_steps=15",
             "train.checkpoint_interval_steps=15", "train.keep_checkpoints=10"]  # fmt: skip
    outputs = ["--best-params", str(_empty(work)), "--model", str(work / "voice"),
               "--report", str(work / "training.html")]  # fmt: skip
    command = _command(project, work, params, "train", *outputs)
    command[command.index("--runs") + 1] = str(runs)
    calm = subprocess.Popen([*command, *_set(steps)], cwd=work)
    while calm.poll() is None and _step(runs) < CALM_STEPS:
        time.sleep(POLL_SECONDS)
    calm.send_signal(signal.SIGINT)
    code = calm.wait()
    huge = [*steps, f"train.learning_rate={HUGE_LEARNING_RATE}"]
    result = subprocess.run([*command, *_set(huge), "--resume"], cwd=work, check=False)
    run = list_runs(runs)[0]
    records = read_records(run.metrics_file)
    made = [record for record in records if record.name == "recovery"]
    page = (work / "training.html").read_text() if result.returncode == 0 else ""
    judged = [record for record in records if record.name == "recovery_effect"]
    lower = [record for record in judged if _is_lower(record)]
    return [
        ("SIGINT: saved, resumable", f"exit {code}", code == 75),
        ("a recovery", "; ".join(_told(record) for record in made), bool(made)),
        ("its effect", "; ".join(_effect(record) for record in judged), bool(lower)),
        ("the run goes on to its end", f"exit {result.returncode}", result.returncode == 0),
        ("each recovery in the report", f"{page.count('recovery: ')} of {len(made)}",
         bool(made) and page.count("recovery: ") >= len(made)),
        ("at most three restarts", str(len(made)), len(made) <= 3),
        ("the improvement plan", "written", (run.path / "improvement_plan.json").is_file()),
    ]  # fmt: skip


def _set(changes: list[str]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def _step(runs: Path) -> int:
    known = list_runs(runs) if runs.is_dir() else []
    return known[0].status().step if known else 0


def _is_lower(record: Record) -> bool:
    before, after = record.fields["loss_before"], record.fields["loss_after"]
    return isinstance(before, float) and isinstance(after, float) and after < before


def _empty(work: Path) -> Path:
    path = work / "no_tuning.yaml"
    path.write_text("{}\n")
    return path


def _told(record: Record) -> str:
    return f"step {record.step}: {record.fields['cause']}, {record.fields['action']}"


def _effect(record: Record) -> str:
    fields = record.fields
    before, after = fields["loss_before"], fields["loss_after"]
    return f"{fields['verdict']}: loss {before} before, {after} after"


def _mlflow_rows(work: Path) -> list[tuple[str, str, bool]]:
    """Runs and whose children they are, straight from the tracking database."""
    with sqlite3.connect(work / "mlflow.db") as database:
        runs = database.execute(
            "select kind.value, kind.run_uuid, parent.value from tags kind left join tags parent "
            "on parent.run_uuid = kind.run_uuid and parent.key = 'mlflow.parentRunId' "
            "where kind.key = 'kamerton.kind'"
        ).fetchall()
    studies = {run for kind, run, _ in runs if kind == "study"}
    rows = [("MLflow: one study", str(len(studies)), len(studies) == 1)]
    tree = next((work / "runs/studies").glob("*/generations.json"), None)
    generations = yaml.safe_load(tree.read_text())["generations"] if tree else []
    for kind, wanted in (
        ("trial", len(_trial_runs(work))),
        ("generation", sum(len(one["candidates"]) for one in generations)),
    ):
        parents = [parent for found, _, parent in runs if found == kind]
        below = sum(parent in studies for parent in parents)
        words = f"{below} of {len(parents)} runs, {wanted} wanted"
        holds = below == len(parents) == wanted > 0
        rows.append((f"MLflow: each {kind} once, below the study", words, holds))
    return rows


if __name__ == "__main__":
    sys.exit(main())
