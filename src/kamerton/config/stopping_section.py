"""The parameters of the stop decision, under the specification's names where it has them."""

from typing import Annotated, Literal

from pydantic import Field

from kamerton.config.section import Section, Share

_Weight = Annotated[float, Field(ge=0.0)]


class EnsembleWeights(Section):
    """What each group of voters counts in the evidence; 0 leaves a group out."""

    statistical_consensus: _Weight = Field(0.3, description="CUSUM and Mann-Kendall")
    bayesian_prediction: _Weight = Field(0.4, description="the forecast of the curve")
    attention_analysis: _Weight = Field(0.3, description="health of attention and gate")


class AttentionMonitoringParams(Section):
    """Attention as a signal; all diagonalities are the calibrated, free-running one."""

    enabled: bool = Field(True, description="false: attention neither guards nor stops a run")
    alignment_threshold: Share = Field(0.8, description="diagonality from which a voice is aligned")
    guard_threshold: Share = Field(
        0.5, description="a run that never reached it is not stopped for want of progress"
    )
    guard_share: Share = Field(0.6, description="share of the plan up to which that holds")
    monotonic_penalty: Share = Field(
        0.1, description="what attention that goes back takes off the score of health"
    )


class CusumParams(Section):
    """Page's cumulative sums over standardised innovations."""

    slack: float = Field(0.5, ge=0.0, description="drift that is let pass, in standard deviations")
    threshold: float = Field(5.0, gt=0.0, description="sum from which a change is an alarm")


class ForecastParams(Section):
    """The forecast of what the rest of the plan would bring."""

    min_share: Share = Field(0.53, description="share of the plan before which it stops nothing")
    min_improvement: Share = Field(
        0.01, description="improvement that counts, as a share of the range so far"
    )
    stop_probability: Share = Field(
        0.3, description="probability of such an improvement up to which it may stop a run"
    )
    noisy_wait: Share = Field(
        0.045,
        description="share of the plan without anything better, and later, to stop a noisy curve",
    )
    max_misfit: Share = Field(
        0.03, description="lasting deviation from its curve, of the range, from which it is silent"
    )
    while_annealing: bool = Field(
        False, description="true: it may stop a run whose learning rate is still falling"
    )


class OverfittingParams(Section):
    """Signs of overfitting; their weighted sum is the risk, low, medium or high."""

    enabled: bool = Field(True, description="false: no risk is computed")
    val_loss_increase_threshold: float = Field(
        0.05, gt=0.0, description="rise of the validation loss over its best, as a share"
    )
    min_diagonality: Share = Field(
        0.7, description="diagonality that an aligned voice keeps; 0: attention is no sign"
    )
    premature_stopping_threshold: Share = Field(
        0.3, description="share of sentences that end too early"
    )


class StopRulesParams(Section):
    """What may stop a run, or keep it from being stopped; false leaves a rule out."""

    patience: bool = Field(True, description="stop when nothing better was found for long")
    forecast: bool = Field(True, description="stop when nothing better is to be expected")
    divergence: bool = Field(True, description="stop when the loss has gone up for good")
    collapse: bool = Field(True, description="stop when attention is lost, and the loss with it")
    overfitting: bool = Field(True, description="stop when the risk of overfitting is high")
    not_finite: bool = Field(True, description="stop when the loss is no number")
    guard: bool = Field(True, description="do not stop a voice that has not aligned yet")
    falling: bool = Field(True, description="do not stop while a loss above its best comes down")
    promise: bool = Field(True, description="do not stop while an improvement is to be expected")
    schedule: bool = Field(True, description="do not stop before a known drop of the learning rate")


VoterName = Literal["cusum", "mann_kendall", "forecast", "attention_health", "gate_health"]


class PatienceStage(Section):
    """A stretch of the plan and its patience."""

    name: str = Field(min_length=1, description="as it is shown")
    share: float = Field(gt=0.0, description="its length, relative to that of the others")
    multiplier: float = Field(gt=0.0, description="what it makes of the patience")


class EarlyStoppingParams(Section):
    """When a run that finds nothing better ends; see docs/reference/stopping.md."""

    enabled: bool = Field(True, description="false: a run ends with its budget")
    patience_share: float = Field(
        0.3, gt=0.0, le=1.0, description="share of the plan without a better evaluation to bear"
    )
    patience_evaluations: int = Field(
        24,
        ge=1,
        description="the least adaptive patience in evaluations, and at most 0.6 of a plan",
    )
    min_evaluations: int = Field(8, ge=2, description="no run ends before so many evaluations")
    min_delta: Share = Field(
        0.001, description="what counts as better, as a share of the range so far"
    )
    adaptive_patience: bool = Field(
        True, description="patience by stage and evidence; false: patience_share alone"
    )
    stages: tuple[PatienceStage, ...] = Field(
        (
            PatienceStage(name="warmup", share=0.1, multiplier=1.5),
            PatienceStage(name="main", share=0.5, multiplier=1.0),
            PatienceStage(name="fine_tune", share=0.4, multiplier=1.0),
        ),
        min_length=1,
        description="what each stretch of the plan makes of the patience; shares count relatively",
    )
    evidence_gain: Share = Field(
        0.3, description="how much of the patience the voters' evidence can take or add"
    )
    surprise_gain: float = Field(
        0.5, ge=0.0, description="what a curve that departed from its forecast adds to the patience"
    )
    ensemble_weights: EnsembleWeights = Field(
        default_factory=EnsembleWeights, description="what each group of voters counts"
    )
    attention_monitoring: AttentionMonitoringParams = Field(
        default_factory=AttentionMonitoringParams, description="attention as a signal"
    )
    cusum: CusumParams = Field(default_factory=CusumParams, description="change of level")
    mann_kendall_alpha: float = Field(
        0.05, gt=0.0, lt=0.5, description="error of the first kind of the trend test"
    )
    forecast: ForecastParams = Field(default_factory=ForecastParams, description="the forecast")
    overfitting: OverfittingParams = Field(
        default_factory=OverfittingParams, description="signs of overfitting"
    )
    divergence_share: Share = Field(
        0.3, description="rise over the best, of the range so far, that is a divergence"
    )
    divergence_wait: Share = Field(
        0.14, description="share of the plan for which the loss stays so high in a divergence"
    )
    collapse_share: Share = Field(
        0.1, description="rise over the best, of the range so far, that makes a collapse final"
    )
    collapse_wait: Share = Field(
        0.2, description="share of the plan for which attention stays lost in a collapse"
    )
    rules: StopRulesParams = Field(
        default_factory=StopRulesParams, description="which rules are in force"
    )
    silent_voters: tuple[VoterName, ...] = Field(
        (), description="voters that are not heard: cusum, mann_kendall, forecast, ..."
    )
