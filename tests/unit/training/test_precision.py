"""Which number format each device and network gets."""

import pytest
import torch

from kamerton.config.schema import TrainParams
from kamerton.core.errors import ParamsError
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.training import precision
from kamerton.training.precision import autocast_dtype, needs_scaler, sets_tf32

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PAPER = Architecture(30)
DEMO = Architecture(30, encoder_embedding_dim=128, attention_rnn_dim=256, decoder_rnn_dim=256)


def a_gpu(monkeypatch: pytest.MonkeyPatch, *capability: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)


@pytest.mark.parametrize("has", [True, False])
def test_auto_on_a_cpu_needs_its_instructions_and_a_large_network(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has)
    train = TrainParams()
    assert autocast_dtype(train, CPU, PAPER) == (torch.bfloat16 if has else None)
    assert autocast_dtype(train, CPU, DEMO) is None
    assert not sets_tf32(train, CPU)
    assert not needs_scaler(train, CPU)


@pytest.mark.parametrize(("capability", "rounds"), [((9, 0), True), ((7, 5), False)])
def test_auto_on_a_gpu_is_tf32_where_there_is_any(
    capability: tuple[int, int], rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_gpu(monkeypatch, *capability)
    train = TrainParams()
    assert autocast_dtype(train, GPU, PAPER) is None
    assert sets_tf32(train, GPU) == rounds


def test_bfloat16_without_instructions_for_it_is_told_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    assert autocast_dtype(TrainParams(precision="bf16"), CPU, PAPER) == torch.bfloat16
    assert "single precision is faster" in caplog.text


def test_a_format_that_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    a_gpu(monkeypatch, 8, 6)
    for name, format in (("fp32", None), ("tf32", None), ("bf16", torch.bfloat16),
                         ("fp16", torch.float16)):  # fmt: skip
        train = TrainParams(precision=name)
        assert autocast_dtype(train, GPU, DEMO) == format
        assert sets_tf32(train, GPU) == (name == "tf32")
        assert needs_scaler(train, GPU) == (name == "fp16")
    assert autocast_dtype(TrainParams(precision="bf16"), CPU, DEMO) == torch.bfloat16
    assert autocast_dtype(TrainParams(precision="fp32"), CPU, PAPER) is None


@pytest.mark.parametrize(
    ("name", "device"), [("fp16", CPU), ("tf32", CPU), ("bf16", GPU), ("tf32", GPU)]
)
def test_a_format_that_the_device_lacks_is_an_error_with_a_way_out(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_gpu(monkeypatch, 7, 0)
    with pytest.raises(ParamsError) as caught:
        autocast_dtype(TrainParams(precision=name), device, PAPER)
    assert name in caught.value.message
    assert "auto" in caught.value.hint
