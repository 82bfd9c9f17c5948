import hashlib
import itertools
import sys
from urllib.error import URLError

import numpy as np
import pytest

from kamerton.audio.resample import resample
from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    ParamsError,
    ToolMissingError,
)
from kamerton.data.filters import judge_recognition
from kamerton.data.recognisers.openai_whisper import summarise
from kamerton.data.transcription import find_model, load_recogniser
from kamerton.demo.espeak import SAMPLE_RATE_HZ, Utterance, speak_all
from kamerton.demo.vocabulary import sentences
from kamerton.metrics.intelligibility import word_errors
from kamerton.text.normalise import normalise
from tests.clip_folder import hum

WAVE = hum(1.0)


def params(model, **changed):
    return TranscribeParams(model=str(model), **changed)


@pytest.fixture(scope="session")
def random_whisper(tmp_path_factory):
    """Whisper checkpoints of random weights: path by whether they know several languages."""
    torch = pytest.importorskip("torch")
    model = pytest.importorskip("whisper.model")
    folder = tmp_path_factory.mktemp("whisper")
    paths = {}
    for multilingual, n_vocab in ((False, 51864), (True, 51865)):
        torch.manual_seed(7)
        sizes = {"n_audio_state": 8, "n_audio_head": 1, "n_audio_layer": 1}
        sizes |= {"n_text_state": 8, "n_text_head": 1, "n_text_layer": 1}
        # The fewest text positions that leave room for a prompt keep random babble short.
        dims = model.ModelDimensions(
            n_mels=80, n_audio_ctx=1500, n_vocab=n_vocab, n_text_ctx=16, **sizes
        )
        paths[multilingual] = folder / f"{n_vocab}.pt"
        made = model.Whisper(dims)
        # Whisper leaves its positions uninitialised for the checkpoint to fill.
        torch.nn.init.normal_(made.decoder.positional_embedding, std=0.01)
        contents = {"dims": vars(dims), "model_state_dict": made.state_dict()}
        torch.save(contents, paths[multilingual])
    return paths


def test_a_published_name_is_taken_as_it_is():
    found = find_model(params("large-v3"))
    assert (found.path, found.load_name, found.identity) == (None, "large-v3", "large-v3")


def test_a_file_is_known_by_its_hash(tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    found = find_model(params(path))
    assert found.path == path
    assert found.identity == hashlib.sha256(b"weights").hexdigest()[:12]


def test_a_relative_path_is_seen_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "model.pt").write_bytes(b"w")
    monkeypatch.chdir(tmp_path)
    assert find_model(params("toy")).load_name == "toy/model.pt"


def test_one_folder_serves_both_backends(tmp_path):
    (tmp_path / "toy.pt").write_bytes(b"torch")
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "model.bin").write_bytes(b"ctranslate")
    reference = find_model(params(tmp_path))
    fast = find_model(params(tmp_path, backend="faster-whisper"))
    assert reference.path == tmp_path / "toy.pt"
    assert fast.path == tmp_path / "ct2"
    assert fast.identity == hashlib.sha256(b"ctranslate").hexdigest()[:12]
    assert find_model(params(tmp_path / "ct2", backend="faster-whisper")).path == tmp_path / "ct2"


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_a_path_that_leads_nowhere_says_what_to_write(tmp_path, backend):
    with pytest.raises(InputMissingError, match=r"none\.pt does not exist") as caught:
        find_model(params(tmp_path / "none.pt", backend=backend))
    assert "large-v3" in caught.value.hint


def test_owner_and_model_may_be_on_the_hub_for_faster_whisper_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(params("Systran/some-model", backend="faster-whisper")).path is None
    with pytest.raises(InputMissingError):
        find_model(params("Systran/some-model"))
    (tmp_path / "assets").mkdir()
    with pytest.raises(InputMissingError):
        find_model(params("assets/toy", backend="faster-whisper"))


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path):
    with pytest.raises(InputEmptyError, match=r"no file \*\.pt"):
        find_model(params(tmp_path))
    (tmp_path / "one.pt").touch()
    (tmp_path / "two.pt").touch()
    with pytest.raises(InputEmptyError, match="but 2"):
        find_model(params(tmp_path))
    with pytest.raises(InputEmptyError, match="CTranslate2"):
        find_model(params(tmp_path / "one.pt", backend="faster-whisper"))


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_an_unknown_name_is_answered_with_the_nearest(backend):
    pytest.importorskip(backend.replace("-", "_"))
    with pytest.raises(ParamsError, match="no Whisper model 'large-v33'") as caught:
        load_recogniser(params("large-v33", backend=backend), "en")
    assert "did you mean 'large-v3'" in caught.value.hint


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("whisper", "whisper", "--no-deps"), ("faster-whisper", "faster_whisper", "kamerton[asr]")],
)
def test_a_missing_package_is_named_with_its_installation(monkeypatch, backend, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolMissingError) as caught:
        load_recogniser(params("tiny", backend=backend), "en")
    assert extra in caught.value.hint


def test_weights_that_cannot_be_downloaded_are_explained(monkeypatch):
    whisper = pytest.importorskip("whisper")

    def offline(_name):
        raise URLError("no network")

    monkeypatch.setattr(whisper, "load_model", offline)
    with pytest.raises(ToolMissingError, match=r"download failed: .*no network") as caught:
        load_recogniser(params("tiny"), "en")
    assert "transcribe.model" in caught.value.hint


def test_fast_weights_that_cannot_be_downloaded_are_explained(monkeypatch):
    faster_whisper = pytest.importorskip("faster_whisper")

    def offline(*_names, **_options):
        raise ConnectionError("no network")

    monkeypatch.setattr(faster_whisper, "WhisperModel", offline)
    with pytest.raises(ToolMissingError, match="download failed: no network"):
        load_recogniser(params("tiny", backend="faster-whisper"), "en")


def test_threads_are_those_asked_for(random_whisper, monkeypatch):
    import torch

    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    load_recogniser(params(random_whisper[False]), "en")
    load_recogniser(params(random_whisper[False], threads=3), "en")
    assert asked == [3]


def test_whisper_answers_through_its_own_code(random_whisper):
    recogniser = load_recogniser(params(random_whisper[False]), "en")
    answers = recogniser.transcribe([WAVE, WAVE[:8000]])
    assert len(answers) == 2
    assert answers[0].language == "en"
    assert answers[0].avg_logprob < -1.0, "random weights are unsure"
    assert answers[0].temperature == 0.4, "the ladder was climbed to its end"
    assert 0.0 <= answers[0].no_speech_prob <= 1.0
    assert answers[0].compression_ratio > 0.0


def test_a_sampled_answer_depends_on_the_sound_alone(random_whisper):
    import torch

    recogniser = load_recogniser(params(random_whisper[False], temperatures=(1.0,)), "en")
    before = torch.random.get_rng_state()
    first = recogniser.transcribe([WAVE])
    second = recogniser.transcribe([WAVE[:9000], WAVE])[1:]
    assert first == second
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_limits_steer_the_temperature_ladder(random_whisper):
    content = params(random_whisper[False], min_avg_logprob=-99.0, max_compression_ratio=99.0)
    answer = load_recogniser(content, "en").transcribe([WAVE])[0]
    assert answer.temperature == 0.0


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # whisper under numpy 2
def test_beams_are_used_when_asked_for(random_whisper, monkeypatch):
    import whisper.decoding

    seen = []
    plain = whisper.decoding.BeamSearchDecoder.__init__

    def spy(self, beam_size, *rest, **options):
        seen.append(beam_size)
        plain(self, beam_size, *rest, **options)

    monkeypatch.setattr(whisper.decoding.BeamSearchDecoder, "__init__", spy)
    load_recogniser(params(random_whisper[False], temperatures=(0.0,)), "en").transcribe([WAVE])
    assert seen == []
    beams = params(random_whisper[False], temperatures=(0.0,), beam_size=3)
    load_recogniser(beams, "en").transcribe([WAVE])
    assert set(seen) == {3}


def test_language_is_forced_or_detected(random_whisper):
    forced = load_recogniser(params(random_whisper[True], temperatures=(0.0,)), "ru")
    assert forced.transcribe([WAVE])[0].language == "ru"
    detecting = params(random_whisper[True], temperatures=(0.0,), detect_language=True)
    found = load_recogniser(detecting, "ru").transcribe([WAVE])[0].language
    model = load_recogniser(detecting, "ru")._model
    import whisper

    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(WAVE))
    assert found == max(model.detect_language(mel)[1].items(), key=lambda item: item[1])[0]


def test_an_english_model_refuses_other_languages(random_whisper):
    with pytest.raises(ParamsError, match="knows English only"):
        load_recogniser(params(random_whisper[False]), "ru")


def test_what_is_no_checkpoint_is_corrupt(tmp_path):
    pytest.importorskip("whisper")
    path = tmp_path / "mine.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputCorruptError, match="no Whisper checkpoint"):
        load_recogniser(params(path), "en")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("whisper")
    path = tmp_path / "evil.pt"
    torch.save({"dims": Evil(tmp_path / "ran")}, path)
    with pytest.raises(InputCorruptError, match="no Whisper checkpoint"):
        load_recogniser(params(path), "en")
    assert not (tmp_path / "ran").exists()


class Evil:
    """Makes a file when it is unpickled by a loader that trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_converted_model_needs_all_its_files(tmp_path):
    pytest.importorskip("faster_whisper")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InputEmptyError, match=r"config\.json"):
        load_recogniser(params(tmp_path, backend="faster-whisper"), "en")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputCorruptError, match="no CTranslate2 Whisper model"):
        load_recogniser(params(tmp_path, backend="faster-whisper"), "en")


def window(**changed):
    values = {"avg_logprob": -0.5, "no_speech_prob": 0.1, "compression_ratio": 1.0}
    return {"tokens": [1, 2], "temperature": 0.0, **values, **changed}


def test_figures_of_several_windows_become_one():
    answer = summarise(
        " one  two ",
        "en",
        [
            window(),
            window(avg_logprob=-1.0, tokens=[1] * 6, no_speech_prob=0.4, temperature=0.2),
        ],
    )
    assert answer.text == "one two"
    assert answer.avg_logprob == pytest.approx((2 * -0.5 + 6 * -1.0) / 8)
    assert (answer.no_speech_prob, answer.temperature) == (0.4, 0.2)


def test_nothing_heard_has_no_figures():
    answer = summarise("", "en", [])
    assert (answer.text, answer.avg_logprob, answer.no_speech_prob) == ("", None, None)
    assert np.isscalar(answer.language)


@pytest.fixture(scope="session")
def spoken():
    """Sentences that the toy recogniser was not trained on: (texts, waves at 16 kHz)."""
    pytest.importorskip("espeakng_loader")
    texts = list(itertools.islice(sentences(np.random.default_rng(11), part="corpus"), 5))
    speech = speak_all([Utterance(text) for text in texts])
    return texts, [resample(item.wave, SAMPLE_RATE_HZ, 16000) for item in speech]


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_the_toy_hears_what_was_said(repository, spoken, backend):
    toy = repository / "assets" / "toy-whisper"
    if not toy.is_dir():
        pytest.skip("the toy recogniser is not trained (assets/toy-whisper)")
    pytest.importorskip(backend.replace("-", "_"))
    texts, waves = spoken
    recogniser = load_recogniser(params(toy, backend=backend), "en")
    answers = recogniser.transcribe(waves)
    heard = [normalise(answer.text, "en") for answer in answers]
    assert word_errors(texts, heard).wer <= 0.15
    assert recogniser.transcribe(waves[3:]) == answers[3:]
    assert all(not judge_recognition(answer, params(toy), "en") for answer in answers)
