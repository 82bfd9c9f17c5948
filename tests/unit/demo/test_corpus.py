import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from kamerton.core.errors import UsageError
from kamerton.core.files import sha256_tree
from kamerton.demo import corpus
from kamerton.demo.corpus import TAKES, make_corpus
from kamerton.demo.truth import TrueSentence, read_truth
from kamerton.demo.vocabulary import WORDS, part_of

pytest.importorskip("espeakng_loader")
soundfile = pytest.importorskip("soundfile")

MINUTES = 0.5


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small corpus: raw/ and truth/. Copy it before changing it."""
    root = tmp_path_factory.mktemp("corpus")
    report = make_corpus(root / "raw", root / "truth", seed=7, minutes=MINUTES)
    assert report.made
    return root


@pytest.fixture
def copy(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def decoded(root: Path, source: str) -> tuple[np.ndarray, int]:
    wave, rate = soundfile.read(str(root / "raw" / source), dtype="float32", always_2d=True)
    return wave.mean(axis=1), rate


def test_recordings_are_as_people_have_them(made) -> None:
    found = {
        path.relative_to(made / "raw").as_posix(): soundfile.info(str(path))
        for path in (made / "raw").rglob("*.*")
    }
    assert set(found) == {take.file for take in TAKES}
    formats = {(info.format, info.samplerate, info.channels) for info in found.values()}
    assert {("WAV", 44100, 1), ("FLAC", 48000, 2), ("MP3", 44100, 1)} <= formats
    assert any(not name.isascii() and "/" in name for name in found)
    assert sum(take.share for take in TAKES) == pytest.approx(1.0)


def test_the_default_corpus_would_have_long_recordings() -> None:
    assert all(2.0 <= 12.0 * take.share <= 4.0 for take in TAKES)


def test_the_truth_is_well_formed(made) -> None:
    truth = read_truth(made / "truth")
    texts = [sentence.text for sentence in truth]
    assert len(set(texts)) == len(texts)
    for sentence in truth:
        assert 2.0 <= sentence.seconds <= 3.2
        assert [word.word for word in sentence.words] == sentence.text.split()
        assert {word.word for word in sentence.words} <= set(WORDS)
        assert part_of(sentence.text) == "corpus"
        edges = [t for word in sentence.words for t in (word.start_seconds, word.end_seconds)]
        assert edges == sorted(edges)
        assert edges[0] == sentence.start_seconds
        assert edges[-1] == pytest.approx(sentence.end_seconds, abs=2e-4)


def test_pauses_between_sentences_are_natural(made) -> None:
    truth = read_truth(made / "truth")
    for before, after in itertools.pairwise(truth):
        if before.source == after.source:
            assert 0.34 <= after.start_seconds - before.end_seconds <= 1.21


@pytest.mark.parametrize("source", [take.file for take in TAKES])
def test_true_times_hold_for_the_decoded_file(made, source) -> None:
    """Speech begins and ends where the truth says, in mp3 too, whose codec could shift it."""
    wave, rate = decoded(made, source)
    sentences = [s for s in read_truth(made / "truth") if s.source == source]
    assert sentences
    step = rate // 200  # 5 ms
    level = np.sqrt(np.mean(wave[: len(wave) // step * step].reshape(-1, step) ** 2, axis=1))
    quiet = np.median(level[: int((sentences[0].start_seconds - 0.05) * 200)])
    loud = np.flatnonzero(level > max(4 * quiet, 0.02 * level.max())) / 200
    for sentence in sentences:
        inside = loud[(loud > sentence.start_seconds - 0.15) & (loud < sentence.end_seconds + 0.15)]
        assert abs(inside[0] - sentence.start_seconds) < 0.06
        assert abs(inside[-1] + 0.005 - sentence.end_seconds) < 0.12  # endings fade out


def test_levels_and_noise_differ_and_nothing_clips(made) -> None:
    loudness, noise = {}, {}
    for take in TAKES:
        wave, rate = decoded(made, take.file)
        assert np.abs(wave).max() < 0.999
        first = next(s for s in read_truth(made / "truth") if s.source == take.file)
        noise[take.file] = float(np.std(wave[: int((first.start_seconds - 0.05) * rate)]))
        loudness[take.file] = float(np.std(wave))
    assert max(loudness.values()) > 3 * min(loudness.values())
    assert min(noise.values()) > 1e-5
    assert all(noise[name] < 0.1 * loudness[name] for name in noise)


def test_a_corpus_that_is_there_is_left_alone_at_once(made) -> None:
    before = sha256_tree(made)
    began = time.perf_counter()
    report = make_corpus(made / "raw", made / "truth", seed=7, minutes=MINUTES)
    assert time.perf_counter() - began < 0.2
    assert not report.made
    assert report.sentences == len(read_truth(made / "truth"))
    assert "there already" in report.describe()
    assert sha256_tree(made) == before


def test_the_same_seed_gives_the_same_bytes(made, tmp_path) -> None:
    make_corpus(tmp_path / "raw", tmp_path / "truth", seed=7, minutes=MINUTES)
    assert sha256_tree(tmp_path) == sha256_tree(made)


def test_another_seed_gives_another_corpus(made, copy) -> None:
    assert make_corpus(copy / "raw", copy / "truth", seed=8, minutes=MINUTES).made
    assert texts_of(copy).isdisjoint(texts_of(made))


def texts_of(root: Path) -> set[str]:
    return {sentence.text for sentence in read_truth(root / "truth")}


@pytest.mark.parametrize("damage", ["no fingerprint", "cut file"])
def test_a_damaged_corpus_is_made_whole_again(made, copy, damage) -> None:
    recording = copy / "raw" / TAKES[0].file
    if damage == "no fingerprint":
        (copy / "truth" / corpus.FINGERPRINT_FILE).unlink()
    else:
        recording.write_bytes(recording.read_bytes()[:1000])
    assert make_corpus(copy / "raw", copy / "truth", seed=7, minutes=MINUTES).made
    assert sha256_tree(copy) == sha256_tree(made)


def test_a_failure_leaves_the_old_corpus_and_no_rubbish(made, copy, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(corpus, "_write", broken)
    with pytest.raises(OSError, match="no space"):
        make_corpus(copy / "raw", copy / "truth", seed=9, minutes=MINUTES)
    assert sha256_tree(copy) == sha256_tree(made)


def test_other_peoples_recordings_are_never_mixed_in(tmp_path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "grandmother.wav").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"grandmother\.wav") as caught:
        make_corpus(tmp_path / "raw", tmp_path / "truth", minutes=MINUTES)
    assert "another folder" in caught.value.hint
    assert (tmp_path / "raw" / "grandmother.wav").read_bytes() == b"precious"
    assert not (tmp_path / "truth").exists()


def test_no_length_is_a_usage_error(tmp_path) -> None:
    with pytest.raises(UsageError):
        make_corpus(tmp_path / "raw", tmp_path / "truth", minutes=0)


def test_true_sentences_know_their_length() -> None:
    assert TrueSentence("a.wav", 1.0, 3.5, "x", ()).seconds == 2.5
