"""The specification's own YAML (documents 002 and 003, section 5 and the configuration) loads."""

import pytest

from kamerton.config.loading import load_params
from kamerton.core.errors import ParamsError

# Keys and values as the specification gives them.
DOCUMENT_002 = """
core_engine:
  name: "SmartTunerV2"
  primary_engine: "optuna"
  n_trials: 100
  resume_from_checkpoint: true
optimization:
  sampler: "tpe"
  pruner: "hyperband"
  tpe:
    n_startup_trials: 15
    consider_magic_clip: true
  hyperband:
    min_resource: 1
    max_resource: 80
    reduction_factor: 3
search_space:
  learning_rate: {type: "loguniform", low: 1e-5, high: 1e-2}
  weight_decay: {type: "loguniform", low: 1e-8, high: 1e-3}
  encoder_embedding_dim: {type: "choice", choices: [256, 512]}
  decoder_rnn_dim: {type: "choice", choices: [768, 1024]}
  dropout_decoder: {type: "uniform", low: 0.0, high: 0.5}
  batch_size: {type: "choice", choices: [24, 32, 48]}
  grad_clip_thresh: {type: "uniform", low: 0.5, high: 1.5}
  mel_fmax: {type: "choice", choices: [7600, 8000, null]}
smart_early_stopping:
  enabled: true
  ensemble_weights: {statistical_consensus: 0.3, bayesian_prediction: 0.4, attention_analysis: 0.3}
  tuner_patience: 5
  tuner_min_delta: 0.005
  attention_monitoring: {enabled: true, alignment_threshold: 0.8, monotonic_penalty: 0.1}
  adaptive_patience:
    enabled: true
    initial_patience: 5
    max_patience: 15
    stages:
      - {name: "warmup", epochs: 20, multiplier: 1.5}
monitoring:
  platforms:
    mlflow: {tracking_uri: "http://localhost:5000"}
    wandb: {project: "tacotron2-optimization", entity: "your-team"}
  alerts:
    slack_webhook: "${SLACK_WEBHOOK}"
    email_recipients: ["ml-team@example.com"]
resources:
  mixed_precision: true
  gradient_checkpointing: true
  checkpointing:
    save_frequency_steps: 1000
    keep_n_checkpoints: 3
"""
DOCUMENT_003 = """
hyperparameter_search_space:
  epochs: {min: 500, max: 5000, default: 2000}
early_stopping:
  enabled: true
  patience_epochs: 200
  min_delta: 0.001
  adaptive_thresholds:
    enabled: true
    alignment_phase: {patience: 100, min_improvement: 0.01}
overfitting_detection:
  enabled: true
  val_loss_increase_threshold: 0.05
adaptive_learning:
  enabled: true
  lr_scheduling: {enabled: true, scheduler_type: "cosine_annealing", warmup_epochs: 100}
  batch_size_adaptation: {enabled: true, increase_threshold: 0.95, decrease_threshold: 2.0}
training_recovery:
  enabled: true
  problem_detection:
    gradient_explosion: {threshold: 12.0, action: "reduce_lr"}
    loss_plateau: {patience: 100, action: "lr_restart"}
    attention_collapse: {threshold: 0.25, action: "attention_reset"}
"""


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


def test_document_002_means_what_it_says(tmp_path, caplog):
    params = load(tmp_path, DOCUMENT_002)
    assert params.tune.trials == 100
    assert params.tune.startup_trials == 15
    assert params.tune.pruner == "hyperband"
    space = params.tune.search_space
    rate = space["train.learning_rate"]
    assert (rate.type, rate.low, rate.high, rate.log) == ("float", 1e-5, 1e-2, True)
    assert space["audio.mel_fmax_hz"].choices == (7600, 8000, None)
    assert set(space) == set(type(params)().tune.search_space)
    assert params.tracking.mlflow_uri == "http://localhost:5000"
    assert params.tracking.wandb_project == "tacotron2-optimization"
    assert params.train.checkpoint_interval_steps == 1000
    assert params.train.keep_checkpoints == 3
    warned = "\n".join(record.getMessage() for record in caplog.records)
    assert "consider_magic_clip' has no effect: Optuna deprecated" in warned
    assert "params.yaml:" in warned


def test_document_003_means_what_it_says(tmp_path, caplog):
    params = load(tmp_path, DOCUMENT_003)
    assert (params.analyze.min_epochs, params.analyze.max_epochs) == (500, 5000)
    assert params.train.warmup_steps == 4000
    recovery = params.train.recovery
    assert (recovery.enabled, recovery.explosion_norm) == (True, 12.0)
    assert (recovery.plateau_share, recovery.collapse_below) == (0.05, 0.25)
    assert len(caplog.records) >= 5
    assert all("has no effect:" in record.getMessage() for record in caplog.records)


def test_both_documents_verbatim(tmp_path, repository, caplog):
    """The YAML blocks of the documents themselves, where those are at hand."""
    folder = repository.parent / "shared" / "spec"
    if not folder.is_dir():
        pytest.skip("the specification is not at hand (shared/spec beside the repository)")
    for number, start in (("002", "core_engine:"), ("003", "hyperparameter_search_space:")):
        text = next(folder.glob(f"{number}_*.md")).read_text(encoding="utf-8")
        block = next(b for b in text.split("```") if b.startswith("yaml") and start in b)
        load(tmp_path, block.removeprefix("yaml"))
    assert caplog.records


def test_a_key_the_specification_does_not_know_is_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"params.yaml:2: unknown key"):
        load(tmp_path, "core_engine:\n  n_trails: 3\n")


def test_a_wrong_value_is_reported_at_its_own_line(tmp_path):
    with pytest.raises(ParamsError, match=r"params.yaml:2: tune.trials"):
        load(tmp_path, "core_engine:\n  n_trials: 0\n")


def test_an_empty_section_of_ours_takes_the_specification_s_key(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("tune:\noptimization:\n  sampler: random\n")
    assert load_params(file).tune.sampler == "random"


def test_our_own_key_wins_over_the_specification_s_and_that_is_said(tmp_path, caplog):
    file = tmp_path / "params.yaml"
    file.write_text(
        "tune: {sampler: gp, search_space: {train.batch_size: {type: choice, choices: [4]}}}\n"
        "optimization: {sampler: random}\n"
        "search_space: {batch_size: {type: choice, choices: [8]}}\n"
    )
    params = load_params(file)
    assert params.tune.sampler == "gp"
    assert params.tune.search_space["train.batch_size"].choices == (4,)
    assert "params.yaml:2: 'optimization.sampler' has no effect: tune.sampler" in caplog.text
    assert "params.yaml:3: 'search_space' has no effect" in caplog.text


def test_a_search_space_that_is_none_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("search_space: 5\n")
    with pytest.raises(ParamsError, match="unknown key 'search_space'"):
        load_params(file)
