"""The cache of mel spectrograms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kamerton.audio.mel import log_mel
from kamerton.core.errors import InputCorruptError, ParamsError
from kamerton.data.features import MelCache
from kamerton.data.manifest import Dataset, Row
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
    other = Dataset.open(write_tiny_dataset(tmp_path / "other", train=5, val=1))
    MelCache.build(tmp_path / "cache", other, AUDIO)
    assert len(list((tmp_path / "cache").glob("mels-*"))) == 3


def test_other_texts_and_splits_of_the_same_sounds_use_the_same_frames(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    changed = tuple(replace(r, id=f"new {r.id}", text="x", split="test") for r in dataset.rows())
    card = dataset.card | {"content_sha256": "f" * 64}
    monkeypatch.setattr(Dataset, "audio", lambda *_: pytest.fail("read again"))
    after = MelCache.build(tmp_path / "cache", Dataset(dataset.path, card, changed), AUDIO)
    assert len(list((tmp_path / "cache").glob("mels-*"))) == 1
    for row in dataset.rows():
        np.testing.assert_array_equal(after[f"new {row.id}"], before[row.id])


def test_only_new_sounds_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Dataset.open(write_tiny_dataset(tmp_path / "small", train=4, val=1))
    large = Dataset.open(write_tiny_dataset(tmp_path / "large", train=6, val=2))
    alone = MelCache.build(tmp_path / "alone", large, AUDIO)
    MelCache.build(tmp_path / "cache", small, AUDIO)
    real, read = Dataset.audio, []
    monkeypatch.setattr(
        Dataset, "audio", lambda self, row: read.append(row.audio_sha256) or real(self, row)
    )
    grown = MelCache.build(tmp_path / "cache", large, AUDIO)
    known = {row.audio_sha256 for row in small.rows()}
    assert sorted(read) == sorted({row.audio_sha256 for row in large.rows()} - known)
    assert len(read) == 3
    for row in large.rows():
        np.testing.assert_array_equal(grown[row.id], alone[row.id])


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


def test_sound_that_is_not_finite_is_refused_by_name(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, bad = Dataset.audio, dataset.rows()[2]

    def broken(self: Dataset, row: Row) -> tuple[NDArray[np.float32], int]:
        wave, rate_hz = real(self, row)
        if row.id == bad.id:
            wave = wave.copy()
            wave[len(wave) // 2] = np.nan
        return wave, rate_hz

    monkeypatch.setattr(Dataset, "audio", broken)
    with pytest.raises(InputCorruptError, match=f"clip {bad.id}.*not finite") as caught:
        MelCache.build(tmp_path / "cache", dataset, AUDIO)
    assert bad.source in caught.value.hint
    assert not list((tmp_path / "cache").glob("mels-*"))


def only_cache(folder: Path) -> Path:
    (found,) = folder.glob("mels-*")
    return found


@pytest.mark.parametrize("damage", ["frames cut short", "no frames", "index cut short"])
def test_a_damaged_cache_is_computed_anew(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    before = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    clips = [row.id for row in dataset.rows()]
    expected = {clip: before[clip].copy() for clip in clips}
    folder = only_cache(tmp_path / "cache")
    file = folder / ("index.json" if damage == "index cut short" else "frames.f32")
    if damage == "no frames":
        file.unlink()
    else:
        data = file.read_bytes()
        file.unlink()  # what is mapped stays whole
        file.write_bytes(data[:-6])
    after = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    assert only_cache(tmp_path / "cache") == folder
    for clip in clips:
        np.testing.assert_array_equal(after[clip], expected[clip])


def test_frames_that_became_not_finite_on_disk_are_found(dataset: Dataset, tmp_path: Path) -> None:
    cache = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    clips = [row.id for row in dataset.rows()]
    last = sum(cache.frames(clip) for clip in clips) - 1
    path = only_cache(tmp_path / "cache") / "frames.f32"
    frames = np.memmap(path, dtype="<f4", mode="r+").reshape(-1, AUDIO.mel_channels)
    frames[last, 3] = np.inf
    frames.flush()
    again = MelCache.build(tmp_path / "cache", dataset, AUDIO)
    with pytest.raises(InputCorruptError, match=f"clip {clips[-1]} has frames that are not finite"):
        again.statistics(clips)
