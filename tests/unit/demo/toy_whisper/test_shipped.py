"""The checkpoint in the repository, through the two backends as users run them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from kamerton.core.errors import InputMissingError
from kamerton.data.windows import join_waves, lay
from kamerton.demo import assets
from kamerton.demo.toy_whisper import data
from kamerton.demo.toy_whisper.evaluate import Material, evaluate, materials
from kamerton.demo.vocabulary import WORDS
from kamerton.metrics.intelligibility import word_errors

pytest.importorskip("espeakng_loader")
pytest.importorskip("jiwer")

SENTENCES = 12


@pytest.fixture(scope="module")
def heard() -> list[Material]:
    return materials(SENTENCES, seed=99)


def test_checksums_match() -> None:
    folder = assets.toy_folder()
    written = (folder / assets.CHECKSUMS_FILE).read_text()
    listed = dict(reversed(line.split("  ")) for line in written.splitlines())
    assert {"toy.pt", "ct2/model.bin", "ct2/config.json", "ct2/tokenizer.json"} <= set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert written == assets.checksums(folder)


def test_it_is_small() -> None:
    files = [path for path in assets.toy_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_it_hears_the_voice_and_its_copy_synthesis(heard, backend) -> None:
    alone = [material for material in heard if not material.packed]
    outcomes = evaluate(assets.toy_checkpoint(backend), backend, alone)
    wer = {outcome.material: outcome.wer for outcome in outcomes}
    assert wer["originals"] <= 0.15
    assert wer["copy-synthesis"] <= 0.15
    assert wer["degraded synthesis"] <= 0.3
    assert wer["two in a clip"] <= 0.15
    assert all(outcome.logprob > -0.7 for outcome in outcomes)


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_it_hears_every_clip_of_a_packed_window(heard, backend) -> None:
    """Within a point of unpacked on the whole corpus; a dozen sentences allow a word or two."""
    packed = [material for material in heard if material.packed]
    assert len(packed) == 2
    for outcome in evaluate(assets.toy_checkpoint(backend), backend, packed):
        assert outcome.wer <= 0.06
        assert outcome.doubted is not None
        assert outcome.doubted <= 0.25


def test_timestamps_in_a_packed_window_are_exact_to_tenths_of_a_second(heard) -> None:
    whisper = pytest.importorskip("whisper")
    model = whisper.load_model(str(assets.toy_checkpoint("whisper")), device="cpu")
    waves = [wave for wave in heard[0].waves if len(wave) < 60000][:7]
    places = lay([len(wave) / data.RATE_HZ for wave in waves])
    wave = whisper.pad_or_trim(join_waves(waves, data.RATE_HZ))
    options = whisper.DecodingOptions(language="en", fp16=False)
    answer = whisper.decode(model, whisper.log_mel_spectrogram(wave), options)
    first = whisper.tokenizer.get_tokenizer(multilingual=False).timestamp_begin
    times = [0.02 * (token - first) for token in answer.tokens if token >= first]
    said = [(place.start_seconds + 0.1, place.end_seconds - 0.1) for place in places]
    assert len(times) == 2 * len(said)
    assert np.abs(np.array(times) - np.array(said).ravel()).max() <= 0.3


def test_unmodified_whisper_transcribes_with_its_own_defaults(heard) -> None:
    whisper = pytest.importorskip("whisper")
    model = whisper.load_model(str(assets.toy_checkpoint("whisper")), device="cpu")
    said, times = [], []
    for wave in heard[0].waves:
        answer = model.transcribe(wave, fp16=False, temperature=0.0)  # with timestamps
        said.append(answer["text"])
        times.append((answer["segments"][-1]["end"], len(wave) / 16000 - 0.1))
    assert word_errors(heard[0].texts, said).wer <= 0.15
    errors = [abs(found - true) for found, true in times]
    assert np.median(errors) <= 0.3


def test_unmodified_faster_whisper_transcribes_with_its_own_defaults(heard) -> None:
    faster_whisper = pytest.importorskip("faster_whisper")
    model = faster_whisper.WhisperModel(
        str(assets.toy_checkpoint("faster-whisper")), device="cpu", cpu_threads=1
    )
    said = []
    for wave in heard[0].waves:
        segments, info = model.transcribe(wave, beam_size=1, temperature=0.0)
        said.append("".join(segment.text for segment in segments))
        assert info.language == "en"
    assert word_errors(heard[0].texts, said).wer <= 0.15


def test_what_is_really_said_matters(heard) -> None:
    """It listens: backwards speech is not heard as the sentence it was."""
    backwards = Material(
        "backwards", [wave[::-1].copy() for wave in heard[0].waves[:4]], heard[0].texts[:4]
    )
    outcome = evaluate(assets.toy_checkpoint("whisper"), "whisper", [backwards])[0]
    assert outcome.wer > 0.6


def test_silence_is_mostly_known_for_what_it_is() -> None:
    whisper = pytest.importorskip("whisper")
    model = whisper.load_model(str(assets.toy_checkpoint("whisper")), device="cpu")
    noise = np.random.default_rng(0).normal(scale=1e-3, size=32000).astype(np.float32)
    quiet = model.transcribe(noise, fp16=False, temperature=0.0, no_speech_threshold=None)
    speech = next(data.held_out(1, seed=3))[1]
    loud = model.transcribe(
        data.to_whisper_rate(speech, 22050), fp16=False, temperature=0.0, no_speech_threshold=None
    )
    probability = [
        max((segment["no_speech_prob"] for segment in answer["segments"]), default=1.0)
        for answer in (quiet, loud)
    ]
    assert probability[0] > 0.5
    assert probability[1] < 0.1


def test_the_model_card_is_honest() -> None:
    card = (assets.toy_folder() / "README.md").read_text(encoding="utf-8")
    assert "**A toy.**" in card
    assert all(word in card for word in WORDS)
    assert "espeak-ng" in card
    assert "WER" in card


def test_an_installation_without_it_says_how_to_get_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(assets.kamerton, "__file__", str(tmp_path / "src/kamerton/__init__.py"))
    with pytest.raises(InputMissingError) as caught:
        assets.toy_checkpoint("whisper")
    assert "kamerton.demo.toy_whisper" in caught.value.hint


def test_an_installed_package_carries_it(monkeypatch, tmp_path) -> None:
    folder = tmp_path / "site/kamerton/_project/assets/toy-whisper"
    folder.mkdir(parents=True)
    (folder / "toy.pt").write_bytes(b"")
    monkeypatch.setattr(assets.kamerton, "__file__", str(tmp_path / "site/kamerton/__init__.py"))
    assert assets.toy_checkpoint("faster-whisper") == folder.resolve() / "ct2"
    assert isinstance(assets.toy_checkpoint("whisper"), Path)
