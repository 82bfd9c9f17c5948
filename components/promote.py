"""The promote stage as a Kubeflow component."""

from kfp import dsl

from components import images
from components.container import stage_container


@dsl.container_component
def promote(
    evaluation: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    promote_params: str,
    tracking_params: str,
) -> dsl.ContainerSpec:
    """Hold the evaluation against the gates and make the voice champion if it passes."""
    return stage_container(
        "promote",
        image=images.TRAIN,
        paths={
            "evaluation": evaluation,
            "model": model,
            "promotion": promotion,
        },
        params={"promote": promote_params, "tracking": tracking_params},
    )
