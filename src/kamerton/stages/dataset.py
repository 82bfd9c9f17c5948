"""Filter, normalise, split and pack clips and transcripts into a versioned dataset."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kamerton.config.schema import Params
from kamerton.core.errors import InputEmptyError
from kamerton.core.files import output_directory, require_apart, require_new, write_text
from kamerton.core.progress import Progress, silent
from kamerton.data import dataset_page
from kamerton.data.joining import join, listener, sift, with_phonemes
from kamerton.data.manifest import SPLITS, Dataset
from kamerton.data.packing import write_dataset
from kamerton.data.tables import read_clips, read_transcripts

_SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What the dataset holds and what was left out of it."""

    clips: int
    hours: float
    clips_by_split: Mapping[str, int]
    rejected: Mapping[str, int]
    rejected_clips: int
    rejected_hours: float
    content_sha256: str

    @property
    def partial(self) -> bool:
        """Never: what cannot be read is an error, and what is left out has a reason."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat figures for the pipeline's metrics."""
        return {
            "clips": float(self.clips),
            "hours": self.hours,
            "rejected_clips": float(self.rejected_clips),
            "rejected_hours": self.rejected_hours,
            **{f"{split}_clips": float(n) for split, n in self.clips_by_split.items()},
        }

    def summary(self) -> list[tuple[str, str]]:
        """What the terminal shows."""
        splits = ", ".join(f"{name} {count}" for name, count in self.clips_by_split.items())
        lines = [
            ("clips kept", f"{self.clips} ({self.hours * 60:.1f} min): {splits}"),
            ("clips dropped", f"{self.rejected_clips} ({self.rejected_hours * 60:.1f} min)"),
        ]
        lines += [(f"dropped: {name}", str(count)) for name, count in self.rejected.items()]
        return [*lines, ("content", self.content_sha256[:16])]


def dataset(
    clips: Path,
    transcripts: Path,
    dataset: Path,
    report: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
) -> DatasetReport:
    """Make ``dataset`` of the clips whose transcripts are believed, and a page about it.

    Equal input and parameters give equal bytes. Whatever is left out stands in its
    ``rejected.jsonl`` with the stage that refused it and the reasons.

    Raises:
        InputMissingError, InputCorruptError: an input is not there, or damaged; the line or file
            is named.
        InputEmptyError: too little is left to be split in three.
        ToolMissingError: phonemes are asked for and espeak-ng is not installed.
    """
    for output in (dataset, report):
        require_new(output, force=force)
        require_apart(output, clips, transcripts)
    rows, answers = read_clips(clips), read_transcripts(transcripts)
    entries, refused = join(rows, answers, params.text)
    fit, unfit = sift(entries, params.dataset, listener(clips, rows))
    kept, mute = with_phonemes(fit, params.text)
    rejections = sorted(
        refused + unfit + mute, key=lambda r: (r.source or "", r.start_seconds or 0.0, r.id)
    )
    reasons = Counter(reason for rejection in rejections for reason in rejection.reasons)
    if not kept:
        raise _nothing_left(clips, reasons)
    with output_directory(dataset, force=force) as folder:
        _, card = write_dataset(folder, clips, kept, rejections, params, on_progress)
        page = dataset_page.render(Dataset.open(folder), rejections)
    write_text(report, page)
    seconds = sum(rejection.duration_seconds or 0.0 for rejection in rejections)
    return _report(card, len(rejections), seconds / _SECONDS_AN_HOUR)


def _nothing_left(clips: Path, reasons: Mapping[str, int]) -> InputEmptyError:
    causes = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
    return InputEmptyError(
        clips,
        wanted=f"clip fit to train on (refused: {causes or 'no clips at all'})",
        hint="loosen the limits of the sections segment, transcribe and dataset in params.yaml",
    )


def _report(card: Mapping[str, Any], rejected_clips: int, rejected_hours: float) -> DatasetReport:
    return DatasetReport(
        clips=card["clips"],
        hours=card["hours"],
        clips_by_split={split: card["splits"][split]["clips"] for split in SPLITS},
        rejected=card["rejected"],
        rejected_clips=rejected_clips,
        rejected_hours=round(rejected_hours, 6),
        content_sha256=card["content_sha256"],
    )
