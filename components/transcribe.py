"""The transcribe stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def transcribe(
    clips: dsl.Input[dsl.Dataset],
    transcripts: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    transcribe_params: str,
    text_params: str,
) -> dsl.ContainerSpec:
    """Write down what each clip says, with the recogniser's confidence."""
    return stage_container(
        "transcribe",
        image=images.TRAIN,
        paths={
            "clips": clips,
            "transcripts": transcripts,
        },
        params={"transcribe": transcribe_params, "text": text_params},
    )
