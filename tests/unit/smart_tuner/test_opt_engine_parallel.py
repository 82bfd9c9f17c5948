"""Several trials at a time, several tuners on one study, and studies that begin with a history."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError, PipelineError
from kamerton.smart_tuner import katib, opt_engine, storage, storage_outage
from kamerton.smart_tuner.opt_engine import OptimizationEngine, RunningTrial, TrialResult
from kamerton.smart_tuner.study import baseline_of, best_of, trial_params
from tests.unit.smart_tuner.study_runs import SPACE, make_params, run_study, run_trial

optuna = pytest.importorskip("optuna")


def key(result: TrialResult) -> tuple[Any, ...]:
    return tuple(sorted(result.params.items()))


def run_at_once(
    engine: OptimizationEngine, workers: int, dice: random.Random, kill_after: int | None = None
) -> list[int]:
    """Run trials in a random order of ends; returns the numbers in the order they were entered."""
    running: list[RunningTrial] = []
    ended: list[RunningTrial] = []
    entered: list[int] = []
    while True:
        while len(running) < workers and (trial := engine.next_trial()):
            running.append(trial)
        if not running and not ended:
            return entered
        if running:
            trial = running.pop(dice.randrange(len(running)))
            run_trial(trial)
            ended.append(trial)
        for trial in sorted(ended, key=lambda item: item.number):
            if engine.can_finish(trial):
                ended.remove(trial)
                engine.finish(trial)
                entered.append(trial.number)
                if kill_after is not None and len(entered) >= kill_after:
                    return entered


@settings(max_examples=8)
@given(seed=st.integers(0, 999), workers=st.integers(2, 5), kills=st.lists(st.integers(1, 3)))
def test_parallel_trials_survive_kills_and_none_is_lost_or_run_twice(
    tmp_path_factory: pytest.TempPathFactory, seed: int, workers: int, kills: list[int]
) -> None:
    journal = tmp_path_factory.mktemp("study") / "j.log"
    params, dice = make_params(SPACE, trials=8, workers=workers), random.Random(seed)
    entered: list[int] = []
    for kill in [*kills[:3], None]:
        engine = OptimizationEngine(journal, params, name="s")
        before = engine.finished()
        entered += run_at_once(engine, workers, dice, kill)
        assert {item.number for item in before} <= {item.number for item in engine.finished()}
    assert sorted(entered) == list(range(8))  # each once
    results = engine.finished()
    assert engine.is_complete()
    assert [item.number for item in results] == list(range(8))
    assert len({key(item) for item in results}) == 8


def test_a_killed_trial_goes_on_with_the_values_it_had(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=6, workers=3)
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s")
    asked = [engine.next_trial() for _ in range(3)]
    again = OptimizationEngine(tmp_path / "j.log", params, name="s")
    resumed = [again.next_trial() for _ in range(3)]
    assert [t.params for t in asked if t] == [t.params for t in resumed if t]
    assert [t.number for t in resumed if t] == [0, 1, 2]


def test_the_scale_is_the_baselines_whoever_ends_first(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=3, workers=3, pruner="none")
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s")
    first, second, third = (engine.next_trial() for _ in range(3))
    assert first
    assert second
    assert third
    run_trial(third)
    assert not engine.can_finish(third)
    second.fail("it fell over")
    assert engine.can_finish(second)
    engine.finish(second)
    assert not engine.can_finish(third)
    run_trial(first)
    engine.finish(first)
    assert engine.can_finish(third)
    engine.finish(third)
    results = engine.finished()
    objective = engine.objective()
    assert objective is not None
    for result in (results[0], results[2]):
        assert result.objective == objective(result.metrics)
    assert objective.baseline["val_mel_loss"] == results[0].metrics["val_mel_loss"]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_others_keep_away_from_running_trials(tmp_path: Path, sampler: str) -> None:
    """Without the running trial in the scratch study, both would draw where the best one is."""
    params = make_params(SPACE, trials=20, sampler=sampler, pruner="none", startup_trials=6)
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s")
    for _ in range(8):
        trial = engine.next_trial()
        assert trial
        run_trial(trial)
        engine.finish(trial)
    known = engine._known()
    best = min(known, key=lambda item: item.result.objective if item.result else 9.0)
    others = [opt_engine.KnownTrial(8 + n, best.point) for n in range(6)]
    alone, _ = opt_engine.draw(20, params.tune, engine.sampler, known)
    among, _ = opt_engine.draw(20, params.tune, engine.sampler, [*known, *others])
    assert alone != among


HISTORY = [
    {"train.learning_rate": 2e-3, "train.decoder_dropout": 0.4},
    {"train.learning_rate": 5.0},  # outside, and the other is not said
    {"train.learning_rate": 2e-3, "train.decoder_dropout": 0.4},  # again
]


def test_history_gives_the_first_trials_and_only_to_a_study_that_begins(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=5)
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s", history=HISTORY)
    assert engine.history_trials() == 2
    trial = engine.next_trial()
    assert trial
    run_trial(trial)
    engine.finish(trial)
    # A history that has grown meanwhile changes nothing.
    later = OptimizationEngine(tmp_path / "j.log", params, name="s", history=[])
    found = []
    while trial := later.next_trial():
        found.append(dict(trial.params))
        run_trial(trial)
        later.finish(trial)
    assert found[0] == HISTORY[0]
    assert found[1] == {"train.learning_rate": 1e-2, "train.decoder_dropout": 0.1}
    cold = run_study(tmp_path / "cold.log", params)
    assert found[0] not in [dict(item.params) for item in cold]


def test_no_more_of_the_history_than_asked_for(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=5, history_trials=1)
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s", history=HISTORY)
    assert engine.history_trials() == 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Optuna's gRPC proxy before a study in memory, on a free port of this machine."""
    pytest.importorskip("grpc")
    import socket

    from optuna.storages._grpc.server import make_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = make_server(
        optuna.storages.InMemoryStorage(), "127.0.0.1", port, ThreadPoolExecutor(4)
    )
    running.start()
    yield f"grpc://127.0.0.1:{port}"
    running.stop(grace=None).wait()


def shared(params: Params, owner: str) -> OptimizationEngine:
    return OptimizationEngine(Path("unused"), params, name="shared", owner=owner)


def test_tuners_that_share_a_study_never_run_a_trial_twice(server: str) -> None:
    params = make_params(SPACE, trials=9, storage=server)
    entered: dict[str, list[int]] = {}
    gate = threading.Barrier(2)

    def tuner(owner: str) -> None:
        engine = shared(params, owner)
        gate.wait()
        entered[owner] = []
        while not engine.is_complete():
            trial = engine.next_trial()
            if trial is None:
                continue
            run_trial(trial)
            while not engine.can_finish(trial):
                pass
            engine.finish(trial)
            entered[owner].append(trial.number)

    threads = [threading.Thread(target=tuner, args=(owner,)) for owner in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(entered["a"] + entered["b"]) == list(range(9))
    one, other = shared(params, "a").finished(), shared(params, "b").finished()
    assert one == other
    assert len({key(item) for item in one}) == 9
    assert best_of(one) is not None


def test_a_tuner_takes_its_own_trials_up_again_and_no_others(server: str) -> None:
    params = make_params(SPACE, trials=4, storage=server)
    a = shared(params, "a").next_trial()
    b = shared(params, "b").next_trial()
    assert a
    assert b
    assert (a.number, b.number) == (0, 1)
    again = shared(params, "b").next_trial()
    assert again
    assert (again.number, again.params) == (1, b.params)


def test_trials_of_a_silent_tuner_are_written_off_and_of_a_living_one_are_not(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(opt_engine.time, "monotonic", lambda: now[0])
    params = make_params(SPACE, trials=3, storage=server)
    silent, living, watcher = (shared(params, owner) for owner in ("silent", "living", "watcher"))
    lost, kept = silent.next_trial(), living.next_trial()
    assert lost
    assert kept
    for _ in range(80):
        now[0] += 10.0
        living.beat()
        watcher.beat()
    results = {item.number: item for item in watcher.finished()}
    assert list(results) == [lost.number]
    assert results[0].state == "failed"
    assert "silent" in results[0].reason
    run_trial(kept)
    assert living.can_finish(kept)
    assert living.finish(kept).state == "complete"
    run_trial(lost)
    silent.can_finish(lost)
    silent.finish(lost)  # too late: told in the log, and the others' word stands
    assert watcher.finished()[0].state == "failed"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("sqlite:///study.db", "one writer"),
        ("postgresql://me:secret@host/db", "credentials"),
        ("postgresql://host/db?user=me&password=hidden", "credentials"),
        ("postgresql://host/db?sslpassword=hidden", "credentials"),
        ("postgresql://[host/db", "no valid URL"),
        ("studies", "URL"),
    ],
)
def test_storages_that_cannot_be_shared_are_refused(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_params(storage=address)


def test_a_server_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUDY_URL", "nodatabase://me:secret@host/studies")
    with pytest.raises(PipelineError, match="nodatabase://host/studies") as caught:
        shared(make_params(storage="env:STUDY_URL"), "a")
    assert "secret" not in str(caught.value)
    for odd in ("postgresql://me:sec/ret@host:1/db", "postgresql://me:sec@ret@host/db?password=ret",
                "postgresql://[me:secret/db"):  # fmt: skip
        monkeypatch.setenv("STUDY_URL", odd)
        with pytest.raises((PipelineError, ParamsError)) as caught:
            shared(make_params(storage="env:STUDY_URL"), "a")
        assert "ret@" not in str(caught.value)
        assert "sec" not in str(caught.value)
    monkeypatch.setenv("STUDY_URL", "sqlite:///study.db")
    with pytest.raises(ParamsError, match="one writer"):
        shared(make_params(storage="env:STUDY_URL"), "a")
    monkeypatch.setattr(storage, "_READY_SECONDS", 0.2)
    with pytest.raises(PipelineError, match=r"grpc://127\.0\.0\.1"):
        shared(make_params(storage="grpc://127.0.0.1:1"), "a")
    monkeypatch.delenv("STUDY_URL")
    with pytest.raises(ParamsError, match="STUDY_URL"):
        shared(make_params(storage="env:STUDY_URL"), "a")


def test_a_database_is_used_as_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stands for a server here.
    monkeypatch.setattr(storage, "_resolved", lambda _: f"sqlite:///{tmp_path}/study.db")
    params = make_params(SPACE, trials=3, storage="env:STUDY_URL", pruner="none")
    engine = shared(params, "a")
    while trial := engine.next_trial():
        run_trial(trial)
        engine.finish(trial)
    assert [item.state for item in shared(params, "b").finished()] == ["complete"] * 3
    assert shared(params, "b").is_complete()


class Away:
    """Lets the calls of a server fail as long as ``left`` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.slept = 0, list[float]()
        from optuna.storages import GrpcStorageProxy

        for name in ("get_all_trials", "set_trial_user_attr", "create_new_trial"):
            monkeypatch.setattr(GrpcStorageProxy, name, self._failing(GrpcStorageProxy, name))
        self.now = 0.0
        monkeypatch.setattr(storage_outage.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(storage_outage.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def _failing(self, owner: Any, name: str) -> Any:
        call = getattr(owner, name)

        def made(*given: Any, **more: Any) -> Any:
            if self.left > 0:
                self.left -= 1
                raise ConnectionError("me:secret@host is away")
            return call(*given, **more)

        return made


def test_a_storage_that_is_away_for_a_while_is_waited_for(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = Away(monkeypatch)
    engine = shared(make_params(SPACE, trials=2, storage=server), "a")
    away.left = 4
    trial = engine.next_trial()
    assert trial is not None
    assert trial.number == 0
    assert away.slept == [0.5, 1.0, 2.0, 4.0]
    assert "works again" in caplog.text
    run_trial(trial)
    away.left = 1
    assert engine.can_finish(trial)
    assert engine.finish(trial).state == "complete"
    away.left = 10**6
    with pytest.raises(PipelineError, match=r"does not answer \(ConnectionError\)") as caught:
        engine.next_trial()
    assert "secret" not in f"{caught.value} {caplog.text}"
    assert away.now < storage_outage._PATIENCE_SECONDS + 10
    assert max(away.slept) == 30.0


def test_a_sign_of_life_that_does_not_get_through_ends_nothing_and_waits_for_nobody(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = Away(monkeypatch)
    engine = shared(make_params(SPACE, trials=2, storage=server), "a")
    trial = engine.next_trial()
    assert trial is not None
    away.left = 100
    engine.beat()
    assert away.left == 99
    engine.beat()  # not so soon again
    assert away.left == 99
    assert away.slept == []
    assert "does not answer" not in caplog.text
    assert caplog.text.count("failed") == 1
    away.left, away.now = 0, 11.0
    engine.beat()
    assert (
        shared(make_params(SPACE, trials=2, storage=server), "b")
        ._trials()[0]
        .user_attrs["kamerton.beat"]
    )


def test_a_trial_whose_tuner_died_before_it_had_a_point_is_recorded(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(SPACE, trials=6, storage=server, startup_trials=1)
    dying, living = shared(params, "dying"), shared(params, "living")
    assert dying._study.ask().number == 0
    now = [1000.0]
    monkeypatch.setattr(opt_engine.time, "monotonic", lambda: now[0])
    living.beat()
    now[0] += 700.0
    living.beat()
    (lost,) = living.finished()
    assert (lost.number, lost.state, set(lost.params)) == (0, "failed", set(SPACE))
    shown: list[int] = []
    drawn = opt_engine.draw

    def noted(number: int, tune: Any, sampler: Any, known: Any) -> Any:
        shown.extend(item.number for item in known)
        return drawn(number, tune, sampler, known)

    monkeypatch.setattr(opt_engine, "draw", noted)
    while trial := living.next_trial():
        run_trial(trial)
        living.finish(trial)
    assert living.is_complete()
    results = living.finished()
    assert [item.number for item in results] == list(range(6))
    assert baseline_of(results) is None  # not the first that there is
    assert best_of(results) is not None
    assert 1 in shown
    assert 0 not in shown  # nobody tried that point


def test_no_trainer_is_told_where_the_study_is_kept() -> None:
    params = make_params(SPACE, storage="postgresql://host/studies")
    assert trial_params(params, {}).tune.storage is None
    assert "postgresql" not in katib.render(katib.manifests(params, image="image"))
