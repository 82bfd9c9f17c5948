"""The network's options through the whole train stage: from parameters to a voice that speaks."""

import json
from pathlib import Path

import numpy as np
import pytest

from kamerton.model.voice import Voice
from kamerton.stages.train import train
from tests.tiny_corpus import tiny_params, write_stage_inputs


def two_speakers(dataset: Path) -> None:
    """Every other clip of the dataset is another's."""
    manifest = dataset / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["speaker"] = ("anna", "boris")[number % 2]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("attention", "recurrent", "variational"),
    [
        ("dynamic_convolution", "zoneout", "gal"),
        ("forward", "variational", "learned"),
    ],
)
def test_every_option_trains_is_exported_and_speaks(
    tmp_path: Path, attention: str, recurrent: str, variational: str
) -> None:
    ports = write_stage_inputs(tmp_path)
    two_speakers(ports["dataset"])
    params = tiny_params(
        max_steps=4, eval_interval_steps=4, preset="quality",
        regularisation={"recurrent": recurrent, "variational": variational},
    )  # fmt: skip
    params = params.with_overrides({"train": {"model": {"attention": attention}}})
    train(**ports, params=params, runs=tmp_path / "runs")

    voice = Voice.load(ports["model"])
    made = voice.description.architecture
    assert (made.attention, made.speakers, made.speaker_embedding_dim) == (attention, 2, 64)
    assert made.double_decoder_reduction == 0
    assert voice.description.speakers == ("anna", "boris")
    anna, boris = (voice.read(["abc"], speaker=name)[0].mel for name in ("anna", "boris"))
    assert not np.array_equal(anna, boris)

    lines = (next((tmp_path / "runs").glob("*/metrics.jsonl"))).read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line).get("values", {})}
    assert any("double_decoder" in name for name in logged)
    assert any("variational_kl" in name for name in logged) == (variational == "learned")
