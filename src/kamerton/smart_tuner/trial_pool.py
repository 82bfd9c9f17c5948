"""TrialPool: trains a study's trials, one or several at a time, until the study is complete."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

from kamerton.config.schema import Params
from kamerton.core.errors import (
    ParamsError,
    PipelineError,
    StoppedError,
)
from kamerton.core.progress import Progress
from kamerton.smart_tuner.opt_engine import OptimizationEngine
from kamerton.smart_tuner.recorder import StudyRecorder
from kamerton.smart_tuner.study import StudyFolder
from kamerton.smart_tuner.trainer_wrapper import (
    ENVIRONMENT_FAULTS,
    TrainerOutcome,
    TrainerWrapper,
    Watch,
)
from kamerton.smart_tuner.trials import RunningTrial
from kamerton.tracking.run_directory import RunDirectory

_log = logging.getLogger("kamerton.tune")

_BEAT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


class TrialPool:
    """The trainers of one tuner.

    One worker trains in this thread. More have a thread each; only this one speaks with the engine.
    """

    def __init__(
        self,
        engine: OptimizationEngine,
        folder: StudyFolder,
        params: Params,
        *,
        command: Sequence[str],
        recorder: StudyRecorder,
        stop: Callable[[], bool],
        on_progress: Progress,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            engine: the study, open.
            folder: of the study, which nobody else works in.
            params: of the study.
            command: the trainer's command line, without parameters and runs folder.
            recorder: of the study, open.
            stop: whether we were asked to stop.
            on_progress: told of the steps trained, of all trials.
        """
        self._engine, self._folder, self._params = engine, folder, params
        self._command, self._recorder = list(command), recorder
        self._asked_to_stop, self._on_progress = stop, on_progress
        self._abort = False  # one trial's error ends all
        self._lock = threading.Lock()  # around what trainers' threads share
        self._beaten = time.monotonic()
        length = params.tune.trial_steps
        self._steps = {result.number: length for result in engine.finished()}
        self._under_way: set[int] = set()

    def run(self) -> None:
        """Run the trials that the study still lacks.

        Raises:
            StoppedError: we were asked to stop; what is under way is continued by the next call.
            PipelineError: the trainer cannot work here, whatever the hyperparameters.
        """
        self._recorder.trials_finished(self._engine.finished())
        if self._params.tune.workers == 1:
            self._run_in_turn()
        else:
            self._run_at_once()

    def _run_in_turn(self) -> None:
        ended: list[RunningTrial] = []
        while True:
            trial = self._engine.next_trial()
            if trial is not None:
                self._train(trial, self._stop_and_beat)
                ended.append(trial)
            ended = self._enter(ended)
            if trial is None and self._is_over(ended):
                return

    def _run_at_once(self) -> None:
        running: dict[Future[None], RunningTrial] = {}
        ended: list[RunningTrial] = []
        error: BaseException | None = None
        pool = ThreadPoolExecutor(self._params.tune.workers, thread_name_prefix="trial")
        try:
            while True:
                started = error is None and self._start(pool, running)
                if not running and not started:
                    if error is not None:
                        raise error
                    if self._is_over(ended):
                        return
                done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED) if running else ((), ())
                for future in done:
                    trial = running.pop(future)
                    if (found := future.exception()) is None:
                        ended.append(trial)
                    elif error is None or isinstance(error, StoppedError):
                        error, self._abort = found, True
                ended = self._enter(ended)
                self._beat()
        finally:
            self._abort = True
            pool.shutdown(wait=True)

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future[None], RunningTrial]) -> bool:
        """Begin as many trials as there are free workers; whether any began."""
        before = len(running)
        while len(running) < self._params.tune.workers and not self._stop():
            trial = self._engine.next_trial()
            if trial is None:
                break
            running[pool.submit(self._train, trial, self._stop)] = trial
        return len(running) > before

    def _enter(self, ended: list[RunningTrial]) -> list[RunningTrial]:
        """Enter the ended trials whose scale is known; the others are given back."""
        waiting, entered = [], False
        for trial in sorted(ended, key=lambda item: item.number):
            if not self._engine.can_finish(trial):
                waiting.append(trial)
                continue
            self._engine.finish(trial)
            entered = True
        if entered:
            results = self._engine.finished()
            with self._lock:
                self._recorder.trials_finished(results)
            self._folder.tidy(results)
        return waiting

    def _is_over(self, ended: list[RunningTrial]) -> bool:
        """Whether nothing is left to do; else wait a moment, for other tuners' trials.

        Raises:
            StoppedError: we were asked to stop meanwhile.
        """
        if not ended and self._engine.is_complete():
            if self._engine.patience_left() == 0:
                _log.warning(
                    "the search ended before its %d trials: tune.patience_trials complete ones in "
                    "a row were not better by more than %g",
                    self._params.tune.trials,
                    self._params.tune.min_delta,
                )
            return True
        if self._stop():
            raise self._stopped("while others finish theirs")
        time.sleep(_POLL_SECONDS)
        self._beat()
        return False

    def _stop(self) -> bool:
        return self._abort or self._asked_to_stop()

    def _stop_and_beat(self) -> bool:
        self._beat()
        return self._stop()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= _BEAT_SECONDS:
            self._engine.beat()
            self._beaten = time.monotonic()

    def _train(self, trial: RunningTrial, stop: Callable[[], bool]) -> None:
        """Train one trial to its end; ``trial`` takes what it records.

        Raises:
            StoppedError: we were asked to stop.
            PipelineError: the trainer cannot work here, whatever the hyperparameters.
        """
        with self._lock:
            self._under_way.add(trial.number)
            options = self._folder.prepare(trial, self._params)
        wrapper = TrainerWrapper(
            self._command + options,
            runs=self._folder.trial_runs(trial.number),
            log=self._folder.log(trial.number),
        )
        self._tell(trial.number, 0)
        outcome = wrapper.run(
            Watch(
                on_evaluation=trial.report,
                on_step=lambda step: self._tell(trial.number, step),
                on_run=lambda run: self._note_run(trial.number, run),
                stop=stop,
            )
        )
        with self._lock:
            self._under_way.discard(trial.number)
        self._take(trial, outcome)
        self._tell(trial.number, self._params.tune.trial_steps)

    def _tell(self, number: int, step: int) -> None:
        tune = self._params.tune
        with self._lock:
            known = self._steps.get(number, 0)  # a trial that goes on was further before
            self._steps[number] = max(known, min(step, tune.trial_steps))
            shown = sorted(self._under_way) or [number]
            words = ", ".join(str(one + 1) for one in shown)
            note = f"trial{'s' if len(shown) > 1 else ''} {words} of {tune.trials}"
            self._on_progress(sum(self._steps.values()), tune.trials * tune.trial_steps, note)

    def _note_run(self, number: int, run: RunDirectory) -> None:
        with self._lock:
            self._recorder.trial_started(number, run)

    def _take(self, trial: RunningTrial, outcome: TrainerOutcome) -> None:
        if outcome.ending == "stopped":
            with self._lock:
                self._recorder.trial_stopped(trial.number)
            raise self._stopped(f"in trial {trial.number + 1} of {self._params.tune.trials}")
        if outcome.ending != "failed":
            return
        log = self._folder.log(trial.number)
        # The baseline runs the user's own parameters: if those are wrong, all trials are.
        wrong_params = outcome.exit_code == ParamsError.exit_code and not trial.overrides
        if wrong_params or outcome.exit_code in ENVIRONMENT_FAULTS:
            raise PipelineError(
                f"the trainer cannot run (exit code {outcome.exit_code}):\n{outcome.message}",
                hint=f"its whole output is in {log}",
            )
        trial.fail(f"the trainer ended with {_exit_words(outcome.exit_code)}")

    def _stopped(self, where: str) -> StoppedError:
        return StoppedError(
            f"the search stopped on request {where}; everything is kept in {self._folder.path}."
        )


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
