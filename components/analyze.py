"""The analyze stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def analyze(
    dataset: dsl.Input[dsl.Dataset],
    analysis: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    analyze_params: str,
) -> dsl.ContainerSpec:
    """Measure the dataset and recommend how long to train."""
    return stage_container(
        "analyze",
        image=images.DATA,
        paths={
            "dataset": dataset,
            "analysis": analysis,
            "report": report,
        },
        params={"analyze": analyze_params},
    )
