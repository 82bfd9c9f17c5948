import pytest
from pydantic import ValidationError

from kamerton.config.schema import Params, is_local_path, merge


@pytest.mark.parametrize(
    "section",
    [
        {"audio": {"mel_fmax_hz": 12000}},
        {"audio": {"hop_samples": 2048}},
        {"audio": {"window_samples": 2048}},
        {"segment": {"min_seconds": 7}},
        {"segment": {"max_seconds": 5}},
        {"train": {"model": {"encoder_embedding_dim": 511}}},
        {"train": {"model": {"location_kernel": 30}}},
        {"dataset": {"test_fraction": 0.49, "val_fraction": 0.45}},
        {"dataset": {"name": "../escape"}},
        {"analyze": {"min_epochs": 6000}},
        {"tracking": {"mlflow_uri": "file:./mlruns"}},
        {"tracking": {"mlflow_uri": "mlruns"}},
        {"tracking": {"mlflow_uri": "https://user:secret@host"}},
        {"train": {"learning_rate": float("nan")}},
        {"train": {"learning_rate": float("inf")}},
        {"train": {"prenet_dropout": 1.0}},  # what is left is scaled by 1 / (1 - dropout)
    ],
)
def test_values_that_contradict_are_refused(section):
    with pytest.raises(ValidationError):
        Params.model_validate(section)


def test_null_fmax_is_half_the_rate():
    assert Params.model_validate({"audio": {"mel_fmax_hz": None}}).audio.fmax_hz == 11025


def test_parameters_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        Params().train.seed = 3


def test_overrides_are_validated_and_leave_the_rest():
    changed = Params().with_overrides({"train": {"model": {"prenet_dim": 64}}})
    assert changed.train.model.prenet_dim == 64
    assert changed.train.model.decoder_rnn_dim == Params().train.model.decoder_rnn_dim
    with pytest.raises(ValidationError):
        Params().with_overrides({"train": {"sed": 1}})


def test_a_search_space_is_replaced_not_mixed():
    base = {"tune": {"search_space": {"a": 1, "b": 2}, "trials": 3}}
    assert merge(base, {"tune": {"search_space": {"c": 3}}}) == {
        "tune": {"search_space": {"c": 3}, "trials": 3}
    }


def test_names_of_models_are_told_from_paths():
    assert not is_local_path("large-v3")
    assert not is_local_path("tiny.en")
    assert is_local_path("assets/toy")
    assert is_local_path("toy.pt")
