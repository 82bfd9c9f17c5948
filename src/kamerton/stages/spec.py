"""What each stage reads, writes and is steered by: the contract that four callers share.

The command line is built from this table; Python signatures, dvc.yaml and the KFP components are
compared with it by the contract test.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["Dataset", "Model", "HTML", "Artifact"]


@dataclass(frozen=True, slots=True)
class Port:
    """One file or folder that a stage reads or writes.

    ``kind`` is its KFP artifact type, ``default`` its place in a project.
    """

    name: str
    kind: Kind
    default: str
    help: str

    @property
    def option(self) -> str:
        """The command-line option that names it."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage: its ports, the sections of params.yaml it reads, its extra options and its image."""

    name: str
    summary: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sections: tuple[str, ...]
    image: Literal["data", "train"]
    options: tuple[str, ...] = ()
    next_command: str = ""

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs


def _report(name: str, what: str) -> Port:
    return Port("report", "HTML", f"reports/{name}.html", f"HTML page {what}")


_CLIPS = Port("clips", "Dataset", "data/clips", "folder of clips with clips.jsonl")
_TRANSCRIPTS = Port("transcripts", "Dataset", "data/transcripts.jsonl", "transcripts.jsonl")
_DATASET = Port("dataset", "Dataset", "data/dataset", "dataset folder")
_ANALYSIS = Port("analysis", "Artifact", "data/analysis.json", "analysis.json")
_BEST_PARAMS = Port("best_params", "Artifact", "tuning/best_params.yaml", "best_params.yaml")
_MODEL = Port("model", "Model", "models/voice", "folder of the exported voice")
_EVALUATION = Port(
    "evaluation", "Artifact", "evaluation", "folder with metrics.json, utterances.jsonl and samples"
)

STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec(
            "segment",
            "Cut long recordings into clips of one utterance, only at pauses.",
            inputs=(
                Port(
                    "recordings",
                    "Dataset",
                    "data/raw",
                    "folder of recordings, any format, nested or not",
                ),
            ),
            outputs=(_CLIPS, _report("segment", "on the cuts")),
            sections=("segment", "audio"),
            image="data",
            options=("cache", "workers", "shard"),
            next_command="kamerton transcribe",
        ),
        StageSpec(
            "transcribe",
            "Write down what each clip says, with the recogniser's confidence.",
            inputs=(_CLIPS,),
            outputs=(_TRANSCRIPTS,),
            sections=("transcribe", "text"),
            image="train",
            options=("cache",),
            next_command="kamerton dataset",
        ),
        StageSpec(
            "dataset",
            "Filter, normalise, split and pack clips and transcripts into a dataset.",
            inputs=(_CLIPS, _TRANSCRIPTS),
            outputs=(_DATASET, _report("dataset", "on what was kept and why the rest was not")),
            sections=("dataset", "text"),
            image="data",
            next_command="kamerton analyze",
        ),
        StageSpec(
            "analyze",
            "Measure the dataset and recommend how long to train.",
            inputs=(_DATASET,),
            outputs=(_ANALYSIS, _report("analysis", "on quality and complexity")),
            sections=("analyze",),
            image="data",
            next_command="kamerton tune",
        ),
        StageSpec(
            "tune",
            "Search for hyperparameters with short training runs.",
            inputs=(_DATASET, _ANALYSIS),
            outputs=(
                _BEST_PARAMS,
                Port("trials", "Artifact", "tuning/trials.csv", "trials.csv, one row per trial"),
                _report("tuning", "on the study"),
            ),
            sections=("tune", "train", "audio", "text", "tracking"),
            image="train",
            options=("runs",),
            next_command="kamerton train",
        ),
        StageSpec(
            "train",
            "Train Tacotron 2, or continue an unfinished run, and export the best voice.",
            inputs=(_DATASET, _ANALYSIS, _BEST_PARAMS),
            outputs=(_MODEL, _report("training", "on the training run")),
            sections=("train", "audio", "text", "tracking"),
            image="train",
            options=("runs", "resume", "warm_start", "trial"),
            next_command="kamerton evaluate",
        ),
        StageSpec(
            "evaluate",
            "Let the voice read the test sentences and measure what is heard.",
            inputs=(_DATASET, _MODEL),
            outputs=(_EVALUATION, _report("evaluation", "to look at and listen to")),
            sections=("evaluate", "transcribe", "promote", "tracking"),
            image="train",
            next_command="kamerton promote",
        ),
        StageSpec(
            "promote",
            "Hold the evaluation against the gates and make the voice champion if it passes.",
            inputs=(_EVALUATION, _MODEL),
            outputs=(
                Port(
                    "promotion",
                    "Artifact",
                    "promotion.json",
                    "promotion.json: verdict, reasons, version",
                ),
            ),
            sections=("promote", "tracking"),
            image="train",
            options=("require",),
            next_command='kamerton say "hello" -o hello.wav',
        ),
    )
}
