"""What a study takes from earlier ones on other voices, and what it leaves for later ones."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from kamerton.config.schema import Params
from kamerton.config.search_space import Choice
from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json
from kamerton.smart_tuner.history import Descriptors, History, StudyOutcome
from kamerton.smart_tuner.trials import TrialResult

_KEPT: Final = 3  # configurations of a study, the best first

_log = logging.getLogger("kamerton.tune")


@dataclass(frozen=True, slots=True)
class Lessons:
    """The history file as one study uses it. A study does without it where it cannot be used."""

    history: History
    descriptors: Descriptors | None  # None: the study neither takes nor leaves anything
    dataset_sha256: str
    params: Params

    @classmethod
    def of(cls, file: Path, analysis: Path, card: Mapping[str, Any], params: Params) -> Self:
        """Those of a dataset that was analysed."""
        descriptors = None
        if params.tune.history:
            try:
                described = read_json(analysis, produced_by="analyze")
                descriptors = Descriptors.of(described, card)
            except PipelineError as error:
                _log.warning("the search begins without a history: %s", error)
        return cls(History(file), descriptors, str(card["content_sha256"]), params)

    def first_trials(self) -> list[dict[str, Choice]]:
        """The best configurations of the studies on the nearest datasets, this one's included."""
        if self.descriptors is None:
            return []
        tune = self.params.tune
        try:
            return self.history.nearest_studies(
                self.descriptors, list(tune.search_space), tune.history_trials
            )
        except PipelineError as error:
            _log.warning("the search begins without a history: %s", error)
            return []

    def keep(self, study: str, results: Sequence[TrialResult]) -> None:
        """Leave the best configurations of a finished study."""
        if self.descriptors is None:
            return
        complete = [item for item in results if item.state == "complete"]
        best = sorted(complete, key=lambda item: (item.objective or 0.0, item.number))[:_KEPT]
        outcome = StudyOutcome(
            study_id=study,
            dataset_sha256=self.dataset_sha256,
            descriptors=self.descriptors,
            space_names=tuple(self.params.tune.search_space),
            best=tuple(dict(item.params) for item in best),
            trials=len(complete),
        )
        try:
            self.history.add_study(outcome)
        except PipelineError as error:
            _log.warning("this study teaches later ones nothing: %s", error)
