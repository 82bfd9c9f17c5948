"""What earlier runs and studies taught, on any voice: one SQLite file, ``<runs>/history.db``.

Nothing depends on it: a project without a history gets the rule and a cold search. So its
callers treat a ``HistoryError`` as "no history" and say so; no stage fails for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kamerton.config.search_space import Choice
from kamerton.core.errors import PipelineError
from kamerton.core.files import file_lock

HISTORY_FILE: Final = "history.db"  # in the folder of runs

_log = logging.getLogger("kamerton.history")

_VERSION: Final = 1  # PRAGMA user_version; a later one belongs to a later kamerton
_WAIT_SECONDS: Final = 30.0  # for other processes that write
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, finished TEXT NOT NULL, dataset TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS studies (
    id TEXT PRIMARY KEY, finished TEXT NOT NULL, dataset TEXT NOT NULL, outcome TEXT NOT NULL
);
"""
_SIDE_FILES: Final = ("", "-wal", "-shm")


class HistoryError(PipelineError):
    """The history cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What two datasets are compared by.

    Attributes:
        hours: Of speech.
        speakers: How many.
        language: ISO 639 code.
        quality_score: Of the recordings, 0 to 1.
        sample_rate_hz: Of the clips.
        added_complexity: What makes the voice harder adds this share of epochs, 0 to 1.
    """

    hours: float
    speakers: int
    language: str
    quality_score: float
    sample_rate_hz: int
    added_complexity: float

    @classmethod
    def of(cls, analysis: Mapping[str, Any], card: Mapping[str, Any]) -> Descriptors:
        """Those of an analysed dataset: analysis.json and dataset.json.

        Raises:
            HistoryError: a fact is missing.
        """
        try:
            return cls(
                hours=float(analysis["hours"]),
                speakers=len(card.get("speakers") or (card["speaker"],)),
                language=str(card["language"]),
                quality_score=float(analysis["quality"]["score"]),
                sample_rate_hz=int(card["sample_rate_hz"]),
                added_complexity=float(analysis["complexity"]["multiplier"]) - 1.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(
                f"the analysis does not describe its dataset ({error!r}).",
                hint="make it again: `kamerton analyze --force`",
            ) from error

    def distance(self, other: Descriptors) -> float:
        """How unlike two datasets are; 0 for equal ones, 1 for a difference that matters.

        One stands for: twice the hours, speakers or sample rate; another language; a quality
        apart by 0.2, which is a class of the epoch rule; a complexity apart by 0.3, likewise.
        """
        apart = (
            math.log2((self.hours + 0.01) / (other.hours + 0.01)),
            math.log2(max(1, self.speakers) / max(1, other.speakers)),
            float(self.language != other.language),
            (self.quality_score - other.quality_score) / 0.2,
            math.log2(self.sample_rate_hz / other.sample_rate_hz),
            (self.added_complexity - other.added_complexity) / 0.3,
        )
        return math.hypot(*apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What one finished training run teaches.

    Attributes:
        run_id: The name of its run directory.
        dataset_sha256: What it learned from.
        descriptors: Of that dataset.
        rule_epochs: What the rule alone recommended.
        recommended_epochs: What the analysis recommended.
        planned_epochs: Its budget: recommended, or given by hand.
        steps_per_epoch: Optimiser steps.
        planned_steps: Its budget in steps.
        steps: Steps that it made.
        best_step: Of its best evaluation.
        near_best_step: Of the first evaluation within 2 % of the best, of the range from the first
            evaluation to the best.
        quality: Figure of merit of the best evaluation, lower is better.
        ended: budget, or the cause of its early end.
        warm_started: Whether it began with the weights of another.
        minutes: From its start to its end by the clock, pauses included.
        curve: (step, figure of merit) of every evaluation, finite ones.
        params: Parameters that matter for comparing runs: batch size, learning rate, preset.
        finished: UTC, ISO 8601; filled in when left empty.
    """

    run_id: str
    dataset_sha256: str
    descriptors: Descriptors
    rule_epochs: int
    recommended_epochs: int
    planned_epochs: float
    steps_per_epoch: int
    planned_steps: int
    steps: int
    best_step: int
    near_best_step: int
    quality: float
    ended: str = "budget"
    warm_started: bool = False
    minutes: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""

    @property
    def near_best_epochs(self) -> float:
        """Epochs until it was within 2 % of its best."""
        return self.near_best_step / max(1, self.steps_per_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What one finished search teaches; objectives of different studies are never compared.

    Attributes:
        study_id: Its fingerprint.
        dataset_sha256: What its trials learned from.
        descriptors: Of that dataset.
        space_names: Dotted names of the parameters that were searched.
        best: The best configurations, best first: values by dotted name.
        trials: Completed trials.
        finished: UTC, ISO 8601; filled in when left empty.
    """

    study_id: str
    dataset_sha256: str
    descriptors: Descriptors
    space_names: tuple[str, ...]
    best: tuple[Mapping[str, Choice], ...]
    trials: int = 0
    finished: str = ""


class History:
    """The history file; safe with several processes, each call is one transaction.

    A file that is not a database, or a damaged one, is moved aside with a warning and never
    removed; a new one takes its place.
    """

    def __init__(self, path: Path) -> None:
        """Use ``path``; it is made by the first write, reading an absent one finds nothing."""
        self.path = path

    def add_run(self, outcome: RunOutcome) -> None:
        """Store a run; one of the same id is replaced.

        Raises:
            HistoryError: the file cannot be written.
        """
        self._add("runs", outcome.run_id, outcome.dataset_sha256, outcome)

    def add_study(self, outcome: StudyOutcome) -> None:
        """Store a study; one of the same id is replaced.

        Raises:
            HistoryError: the file cannot be written.
        """
        self._add("studies", outcome.study_id, outcome.dataset_sha256, outcome)

    def runs(self) -> list[RunOutcome]:
        """All runs, the oldest first.

        Raises:
            HistoryError: the file cannot be read.
        """
        return [run for text in self._outcomes("runs") if (run := _read_run(text))]

    def studies(self) -> list[StudyOutcome]:
        """All studies, the oldest first.

        Raises:
            HistoryError: the file cannot be read.
        """
        return [study for text in self._outcomes("studies") if (study := _read_study(text))]

    def nearest_studies(
        self,
        descriptors: Descriptors,
        space_names: Sequence[str],
        count: int,
        *,
        exclude_dataset: str = "",
    ) -> list[dict[str, Choice]]:
        """Configurations to begin a search with: the best of the nearest datasets' studies.

        First the best of each study, the nearest dataset's first, then the second best of each,
        and so on; equal ones count once. Only values of ``space_names`` are given.

        Args:
            descriptors: Of the dataset at hand.
            space_names: Dotted names that may be set.
            count: Most configurations.
            exclude_dataset: Content hash of a dataset whose studies do not count.

        Raises:
            HistoryError: the file cannot be read.
        """
        newest_first = reversed(self.studies())
        near = sorted(
            (study for study in newest_first if study.dataset_sha256 != exclude_dataset),
            key=lambda study: descriptors.distance(study.descriptors),
        )
        found: list[dict[str, Choice]] = []
        for rank in range(max((len(study.best) for study in near), default=0)):
            for study in near:
                values = study.best[rank] if rank < len(study.best) else {}
                config = {name: values[name] for name in space_names if name in values}
                if config and config not in found:
                    found.append(config)
        return found[:count]

    def _add(self, table: str, name: str, dataset: str, outcome: RunOutcome | StudyOutcome) -> None:
        values = asdict(outcome)
        values["finished"] = outcome.finished or datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(values, ensure_ascii=False, sort_keys=True, default=str)
        with self._connection() as database:
            database.execute(
                f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)",
                (name, values["finished"], dataset, text),
            )

    def _outcomes(self, table: str) -> list[str]:
        if not self.path.exists():
            return []
        with self._connection() as database:
            query = f"SELECT outcome FROM {table} ORDER BY finished, id"
            return [str(row[0]) for row in database.execute(query)]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The open file in one transaction, which is kept when the block ends well."""
        try:
            try:
                database = self._open()
            except sqlite3.OperationalError:
                raise  # locked, read-only, no such folder: the file itself may be whole
            except sqlite3.DatabaseError as error:
                self._move_aside(error)
                database = self._open()
            with contextlib.closing(database):
                yield database
                database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(
                f"{self.path}: {error}", hint="give it a place that you may read and write"
            ) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # a power cut loses nothing that was told
            database.execute("BEGIN IMMEDIATE")
            version = int(database.execute("PRAGMA user_version").fetchone()[0])
            if version > _VERSION:
                raise HistoryError(
                    f"{self.path} is of a later version of kamerton ({version}).",
                    hint="use that version, or name another file: analyze.history",
                )
            if version < _VERSION:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            _require_whole(database)
        except BaseException:
            database.close()
            raise
        return database

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        """Keep a damaged file under another name; what else is wrong is raised on."""
        with file_lock(self.path.with_name(f".{self.path.name}.lock")):
            try:
                self._open().close()
                return  # another process has done it meanwhile
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                pass
            number = 1
            while self._aside(number).exists():
                number += 1
            for end in _SIDE_FILES:
                side = self.path.with_name(self.path.name + end)
                if side.exists():
                    side.rename(self._aside(number).with_name(self._aside(number).name + end))
            _log.warning(
                "%s cannot be read (%s); it was moved to %s and a new history begins",
                self.path, error, self._aside(number),
            )  # fmt: skip

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.damaged-{number}{self.path.suffix}")


def _require_whole(database: sqlite3.Connection) -> None:
    """Find a damaged page now rather than in the middle of a write; milliseconds at this size."""
    found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _read_run(text: str) -> RunOutcome | None:
    values = _known(text, RunOutcome)
    try:
        values["curve"] = tuple((int(step), float(value)) for step, value in values["curve"])
        return RunOutcome(**values)
    except (KeyError, TypeError, ValueError):
        return None


def _read_study(text: str) -> StudyOutcome | None:
    values = _known(text, StudyOutcome)
    try:
        values["space_names"] = tuple(values["space_names"])
        values["best"] = tuple(values["best"])
        return StudyOutcome(**values)
    except (KeyError, TypeError, ValueError):
        return None


def _known(text: str, kind: type[RunOutcome] | type[StudyOutcome]) -> dict[str, Any]:
    """The fields of a row; empty for a row that is not ours."""
    names = {item.name for item in fields(kind)}
    try:
        values = {name: value for name, value in json.loads(text).items() if name in names}
        return values | {"descriptors": Descriptors(**values["descriptors"])}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
