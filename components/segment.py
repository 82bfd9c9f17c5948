"""The segment stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def segment(
    recordings: dsl.Input[dsl.Dataset],
    clips: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    segment_params: str,
    audio_params: str,
) -> dsl.ContainerSpec:
    """Cut long recordings into clips of one utterance, only at pauses."""
    return stage_container(
        "segment",
        image=images.DATA,
        paths={
            "recordings": recordings,
            "clips": clips,
            "report": report,
        },
        params={"segment": segment_params, "audio": audio_params},
    )
