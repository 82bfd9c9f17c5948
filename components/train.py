"""The train stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def train(
    dataset: dsl.Input[dsl.Dataset],
    analysis: dsl.Input[dsl.Artifact],
    best_params: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    train_params: str,
    audio_params: str,
    text_params: str,
    tracking_params: str,
    runs: str,
) -> dsl.ContainerSpec:
    """Train Tacotron 2, or continue an unfinished run, and export the best voice."""
    return stage_container(
        "train",
        image=images.TRAIN,
        paths={
            "dataset": dataset,
            "analysis": analysis,
            "best_params": best_params,
            "model": model,
            "report": report,
        },
        params={
            "train": train_params,
            "audio": audio_params,
            "text": text_params,
            "tracking": tracking_params,
        },
        options={"runs": runs},
    )
