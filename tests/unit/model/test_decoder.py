"""The fast decoder against a slow one that reads like the paper."""

import pytest
import torch
from torch import Tensor

from kamerton.model.tacotron2.attention import AttentionRecurrence
from kamerton.model.tacotron2.decoder import Decoder
from kamerton.model.tacotron2.model import valid_positions


def slow_decoder(
    decoder: Decoder, memory: Tensor, valid: Tensor, frames: Tensor, masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tacotron 2's decoder one step at a time, nothing hoisted, nothing fused (no dropout)."""
    recurrence, attention, r = decoder.recurrence, decoder.recurrence.attention, decoder.reduction
    batch, symbols, _ = memory.shape
    size = recurrence.hidden
    hidden, cell = torch.zeros(batch, size), torch.zeros(batch, size)
    speech_size = decoder.lstm.hidden_size
    speech = torch.zeros(batch, speech_size), torch.zeros(batch, speech_size)
    context = torch.zeros(batch, memory.shape[2])
    last, summed = torch.zeros(batch, symbols), torch.zeros(batch, symbols)
    frame = torch.zeros(batch, decoder.mels)
    made, gates, rows = [], [], []
    for step in range(frames.shape[1] // r):
        x = frame
        for index, layer in enumerate(decoder.prenet.layers):
            x = torch.relu(layer(x)) * masks[step][:, index] / (1 - decoder.prenet.dropout)
        summed_gates = (
            recurrence.input(x) + torch.cat([hidden, context], 1) @ recurrence.recurrent.T
        )
        enter, forget, leave, candidate = summed_gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        history = torch.stack([last, summed], dim=1)
        location = torch.nn.functional.conv1d(
            history, attention.location.weight, padding=attention.kernel // 2
        )
        location = attention.project_location(location.transpose(1, 2))
        total = attention.query(hidden)[:, None] + attention.memory(memory) + location
        energies = attention.energy(total.tanh()).squeeze(2).masked_fill(valid == 0, -torch.inf)
        last = energies.softmax(dim=1)
        summed = summed + last
        context = (last[:, :, None] * memory).sum(dim=1)
        _, speech = decoder.lstm(
            torch.cat([hidden, context], dim=1)[None], (speech[0][None], speech[1][None])
        )
        speech = (speech[0][0], speech[1][0])
        state = torch.cat([speech[0], context], dim=1)
        made.append(decoder.frames(state).view(batch, r, decoder.mels))
        gates.append(decoder.gate(state))
        rows.append(last)
        frame = frames[:, (step + 1) * r - 1]
    return torch.cat(made, 1), torch.cat(gates, 1), torch.stack(rows, 1)


def small_decoder(reduction: int, kernel: int = 5) -> Decoder:
    torch.manual_seed(reduction)
    return Decoder(
        6, 10, reduction=reduction, prenet=8, prenet_dropout=0.5,
        attention_lstm=12, decoder_lstm=14, attention=7, filters=3, kernel=kernel,
        attention_dropout=0.0, decoder_dropout=0.0,
    )  # fmt: skip


def inputs(decoder: Decoder, steps: int = 9) -> dict[str, Tensor]:
    lengths = torch.tensor([11, 3, 8])
    valid = valid_positions(lengths, 11)
    memory = torch.randn(3, 11, 10) * valid[:, :, None]
    frames = torch.randn(3, steps * decoder.reduction, 6)
    masks = decoder.prenet.draw_masks(steps, 3)
    return {"memory": memory, "valid": valid, "frames": frames, "masks": masks}


@pytest.mark.parametrize("reduction", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 5, 13])
def test_outputs_and_gradients_equal_the_slow_loop(reduction: int, kernel: int) -> None:
    decoder = small_decoder(reduction, kernel).double()
    torch.set_default_dtype(torch.float64)
    try:
        given = inputs(decoder)
        results = []
        for run in (decoder.__call__, lambda **kw: slow_decoder(decoder, **kw)):
            memory = given["memory"].double().clone().requires_grad_()
            decoder.zero_grad()
            out = run(**{**given, "memory": memory, "frames": given["frames"].double()})
            parts = out if isinstance(out, tuple) else (out.frames, out.gate_logits, out.attention)
            # Unequal weights, so that an error in one output cannot cancel in another.
            torch.manual_seed(7)
            sum((part * torch.randn(part.shape)).sum() for part in parts).backward()
            grads = {name: p.grad.clone() for name, p in decoder.named_parameters()}
            results.append((parts, {**grads, "memory": memory.grad}))
        (fast, fast_grads), (slow, slow_grads) = results
        for ours, reference in zip(fast, slow, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-10)
        for name, reference in slow_grads.items():
            assert reference.abs().sum() > 0, name
            torch.testing.assert_close(fast_grads[name], reference, rtol=1e-8, atol=1e-10, msg=name)
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    recurrence = AttentionRecurrence(3, 4, 5, 6, filters=2, kernel=3).double()
    valid = valid_positions(torch.tensor([4, 2]), 4).double()

    def run(x: Tensor, memory: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        recurrence.recurrent = torch.nn.Parameter(torch.empty(0))
        del recurrence.recurrent
        recurrence.recurrent = recurrent  # type: ignore[assignment]
        return recurrence(x, recurrence.attention.keys(memory, valid))

    recurrent = recurrence.recurrent.detach().clone().requires_grad_()
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, memory, recurrent))


def test_attention_sums_to_one_and_ignores_padding() -> None:
    decoder = small_decoder(2)
    given = inputs(decoder)
    attention = decoder(**given).attention
    torch.testing.assert_close(attention.sum(2), torch.ones(3, 9))
    assert (attention * (1 - given["valid"][:, None])).abs().max() == 0


@pytest.mark.parametrize("reduction", [1, 3])
def test_generation_fed_with_its_own_frames_is_what_teacher_forcing_predicts(
    reduction: int,
) -> None:
    decoder = small_decoder(reduction).eval()
    given = inputs(decoder)
    spoken, lengths, stopped = decoder.generate(
        given["memory"], given["valid"], given["masks"], torch.tensor([9, 9, 9]), 2.0
    )
    assert not stopped.any()
    assert lengths.tolist() == [9 * reduction] * 3
    forced = decoder(given["memory"], given["valid"], spoken.frames, given["masks"])
    torch.testing.assert_close(spoken.frames, forced.frames, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(spoken.attention, forced.attention, rtol=1e-4, atol=1e-5)


def test_generation_ends_at_the_first_frame_whose_gate_opens() -> None:
    decoder = small_decoder(3).eval()
    given = inputs(decoder)
    limits = torch.tensor([9, 4, 9])
    free, _, _ = decoder.generate(given["memory"], given["valid"], given["masks"], limits, 2.0)
    probabilities = free.gate_logits.sigmoid()
    threshold = float(probabilities[0].sort().values[-3])  # opens somewhere inside utterance 0
    _, lengths, stopped = decoder.generate(
        given["memory"], given["valid"], given["masks"], limits, threshold
    )
    for index, limit in enumerate(limits.tolist()):
        opened = (probabilities[index, : limit * 3] > threshold).nonzero()
        assert bool(stopped[index]) == (len(opened) > 0)
        assert int(lengths[index]) == (int(opened[0]) + 1 if len(opened) else limit * 3)
