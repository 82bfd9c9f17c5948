"""The dataset stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def dataset(
    clips: dsl.Input[dsl.Dataset],
    transcripts: dsl.Input[dsl.Dataset],
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    dataset_params: str,
    text_params: str,
) -> dsl.ContainerSpec:
    """Filter, normalise, split and pack clips and transcripts into a dataset."""
    return stage_container(
        "dataset",
        image=images.DATA,
        paths={
            "clips": clips,
            "transcripts": transcripts,
            "dataset": dataset,
            "report": report,
        },
        params={"dataset": dataset_params, "text": text_params},
    )
