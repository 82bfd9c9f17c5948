"""The evaluate stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    evaluate_params: str,
    transcribe_params: str,
    promote_params: str,
    tracking_params: str,
) -> dsl.ContainerSpec:
    """Let the voice read the test sentences and measure what is heard."""
    return stage_container(
        "evaluate",
        image=images.TRAIN,
        paths={
            "dataset": dataset,
            "model": model,
            "evaluation": evaluation,
            "report": report,
        },
        params={
            "evaluate": evaluate_params,
            "transcribe": transcribe_params,
            "promote": promote_params,
            "tracking": tracking_params,
        },
    )
