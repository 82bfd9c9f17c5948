"""The cache of mel spectrograms."""

from pathlib import Path

import numpy as np
import pytest

from kamerton.audio.mel import log_mel
from kamerton.core.errors import InputCorruptError, ParamsError
from kamerton.data.features import MelCache
from kamerton.data.manifest import Dataset
from tests.tiny_corpus import tiny_params, write_dataset, write_tiny_dataset

AUDIO = tiny_params().audio


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path / "dataset", train=4, val=1))


def test_frames_are_those_of_each_clip(dataset: Dataset, tmp_path: Path) -> None:
    cache = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    for row in dataset.rows():
        expected = log_mel(dataset.audio(row)[0], AUDIO).T
        np.testing.assert_array_equal(cache[row.id], expected)
        assert cache.frames(row.id) == len(expected)


def test_statistics_are_those_of_all_frames_together(dataset: Dataset, tmp_path: Path) -> None:
    cache = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    ids = [row.id for row in dataset.rows("train")]
    together = np.concatenate([cache[clip] for clip in ids])
    mean, deviation = cache.statistics(ids)
    np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, together.std(axis=0), rtol=1e-4)


def test_it_is_computed_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MelCache.build(tmp_path / "cache", dataset, AUDIO)
    monkeypatch.setattr(Dataset, "audio", lambda *_: pytest.fail("read again"))
    MelCache.build(tmp_path / "cache", dataset, AUDIO)


def test_other_parameters_or_other_data_are_another_cache(dataset: Dataset, tmp_path: Path) -> None:
    first = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    narrow = AUDIO.model_copy(update={"mel_fmax_hz": 2000.0})
    clip = dataset.rows()[0].id
    assert not np.array_equal(
        MelCache.build(tmp_path / "cache", dataset, narrow)[clip], first[clip]
    )
    dataset.card["content_sha256"] = "f" * 64
    MelCache.build(tmp_path / "cache", dataset, AUDIO)
    assert len(list((tmp_path / "cache").glob("mels-*"))) == 3


def test_a_build_that_was_cut_off_leaves_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Dataset.audio, []

    def fail_at_the_third(self: Dataset, row: object) -> object:
        calls.append(row)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(Dataset, "audio", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        MelCache.build(tmp_path / "cache", dataset, AUDIO)
    assert not list((tmp_path / "cache").glob("mels-*"))
    MelCache.build(tmp_path / "cache", dataset, AUDIO)


def test_another_sample_rate_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    other = AUDIO.model_copy(update={"sample_rate_hz": 22050})
    with pytest.raises(ParamsError, match=r"8000 Hz, audio\.sample_rate_hz is 22050"):
        MelCache.build(tmp_path / "cache", dataset, other)


def test_a_clip_too_short_for_one_window_is_refused(tmp_path: Path) -> None:
    wave = np.zeros(100, np.float32)
    dataset = Dataset.open(write_dataset(tmp_path / "d", [("train", "a", wave)], 8000))
    with pytest.raises(InputCorruptError, match="100 samples"):
        MelCache.build(tmp_path / "cache", dataset, AUDIO)
