"""Every parameter of a voice project, with its unit, its bounds and what it does.

One class per section of params.yaml. Defaults are the production values; a project writes only
what differs. Descriptions are the reference (`kamerton params docs`).
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import Field, PrivateAttr

from kamerton.config.data_sections import (
    AnalyzeParams,
    AudioParams,
    DatasetParams,
    SegmentParams,
    TextParams,
    TranscribeParams,
)
from kamerton.config.section import Section
from kamerton.config.train_section import ModelParams, TrainParams
from kamerton.config.voice_sections import (
    EvaluateParams,
    PromoteParams,
    TrackingParams,
    TuneParams,
)

__all__ = [
    "SECTIONS",
    "AnalyzeParams",
    "AudioParams",
    "DatasetParams",
    "EvaluateParams",
    "ModelParams",
    "Params",
    "PromoteParams",
    "Section",
    "SegmentParams",
    "TextParams",
    "TrackingParams",
    "TrainParams",
    "TranscribeParams",
    "TuneParams",
    "is_local_path",
    "merge",
]


class Params(Section):
    """All of params.yaml."""

    audio: AudioParams = Field(default_factory=AudioParams)
    text: TextParams = Field(default_factory=TextParams)
    segment: SegmentParams = Field(default_factory=SegmentParams)
    transcribe: TranscribeParams = Field(default_factory=TranscribeParams)
    dataset: DatasetParams = Field(default_factory=DatasetParams)
    analyze: AnalyzeParams = Field(default_factory=AnalyzeParams)
    tune: TuneParams = Field(default_factory=TuneParams)
    train: TrainParams = Field(default_factory=TrainParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    promote: PromoteParams = Field(default_factory=PromoteParams)
    tracking: TrackingParams = Field(default_factory=TrackingParams)

    _given: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def given(self) -> frozenset[str]:
        """Dotted names of the parameters that were overridden by hand, with ``--set``."""
        return self._given

    def marked_as_given(self, names: Iterable[str]) -> Self:
        """These parameters, with ``names`` known as set by hand."""
        marked = self.model_copy()
        marked._given = frozenset(names)
        return marked

    def with_overrides(self, overrides: dict[str, Any]) -> Self:
        """These parameters with nested ``overrides`` laid over them, validated again."""
        return type(self).model_validate(merge(self.model_dump(), overrides))


SECTIONS: tuple[str, ...] = tuple(Params.model_fields)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on top; mappings are merged, the search space is replaced."""
    merged = dict(base)
    for key, value in over.items():
        deep = (
            isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "search_space"
        )
        merged[key] = merge(merged[key], value) if deep else value
    return merged


def is_local_path(model: str) -> bool:
    """Whether a model is named by a path rather than by one of Whisper's names."""
    return "/" in model or "\\" in model or PurePosixPath(model).suffix == ".pt"
