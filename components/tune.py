"""The tune stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def tune(
    dataset: dsl.Input[dsl.Dataset],
    analysis: dsl.Input[dsl.Artifact],
    best_params: dsl.Output[dsl.Artifact],
    trials: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    tune_params: str,
    train_params: str,
    audio_params: str,
    text_params: str,
    tracking_params: str,
    runs: str,
) -> dsl.ContainerSpec:
    """Search for hyperparameters with short training runs."""
    return stage_container(
        "tune",
        image=images.TRAIN,
        paths={
            "dataset": dataset,
            "analysis": analysis,
            "best_params": best_params,
            "trials": trials,
            "report": report,
        },
        params={
            "tune": tune_params,
            "train": train_params,
            "audio": audio_params,
            "text": text_params,
            "tracking": tracking_params,
        },
        options={"runs": runs},
    )
