import itertools

import numpy as np
import pytest

from kamerton.demo import espeak
from kamerton.demo.toy_whisper import tokens
from kamerton.demo.vocabulary import PATTERNS, WORD_CLASSES, WORDS, part_of, sentences


def take(count: int, **options) -> list[str]:
    seed = options.pop("seed", 0)
    stream = sentences(np.random.default_rng(seed), **{"part": "corpus", **options})
    return list(itertools.islice(stream, count))


def edits(one: str, other: str) -> int:
    """Levenshtein distance, by its recursive definition over a table."""
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    table[:, 0], table[0, :] = range(len(one) + 1), range(len(other) + 1)
    for i, j in itertools.product(range(len(one)), range(len(other))):
        table[i + 1, j + 1] = min(
            table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (one[i] != other[j])
        )
    return int(table[-1, -1])


def test_the_vocabulary_is_closed_and_of_the_promised_size() -> None:
    assert 40 <= len(WORDS) <= 50
    assert len(set(WORDS)) == len(WORDS)
    assert {word for text in take(500) for word in text.split()} == set(WORDS)


def test_every_word_is_one_token_of_whispers_own_tokenizer() -> None:
    tokenizer = pytest.importorskip("whisper.tokenizer").get_tokenizer(multilingual=False)
    ids = [tokenizer.encode(f" {word}") for word in WORDS]
    assert all(len(one) == 1 for one in ids)
    assert tokens.full_ids()[: len(WORDS)] == [one[0] for one in ids]
    specials = [tokenizer.eot, tokenizer.sot, tokenizer.no_speech, tokenizer.no_timestamps]
    assert tokens.full_ids()[len(WORDS) : len(WORDS) + 4] == specials
    assert tokens.full_ids()[tokens.timestamp(1.5)] == tokenizer.timestamp_begin + 75


def test_no_two_words_sound_alike() -> None:
    pytest.importorskip("espeakng_loader")
    spoken = espeak.phonemes([espeak.Utterance(word) for word in WORDS])
    sounds = [ipa.replace("ˈ", "").replace("ˌ", "").replace("ː", "") for ipa in spoken]
    assert all(sounds)
    near = [pair for pair in itertools.combinations(sounds, 2) if edits(*pair) < 3]
    assert near == []


def test_sentences_are_different_and_of_four_to_seven_words() -> None:
    texts = take(1000)
    assert len(set(texts)) == 1000
    assert {len(text.split()) for text in texts} == {4, 5, 6, 7}
    for text in texts:
        words = text.split()
        assert len(set(words)) == len(words)
        assert set(words) <= set(WORDS)


def test_the_two_parts_never_share_a_sentence() -> None:
    corpus, training = take(2000), take(2000, part="training")
    assert not set(corpus) & set(training)
    assert {part_of(text) for text in corpus} == {"corpus"}
    assert {part_of(text) for text in training} == {"training"}


def test_order_cannot_be_guessed() -> None:
    """After any word, many different words follow: grammar alone must not give the answer."""
    followers: dict[str, set[str]] = {word: set() for word in WORDS}
    for text in take(4000):
        for word, following in itertools.pairwise(text.split()):
            followers[word].add(following)
    assert min(len(after) for after in followers.values()) >= len(WORDS) // 2


def test_patterns_use_known_classes_only() -> None:
    assert {letter for pattern in PATTERNS for letter in pattern} == set(WORD_CLASSES)
    assert {len(pattern) for pattern in PATTERNS} == {4, 5, 6, 7}


def test_same_seed_same_sentences() -> None:
    assert take(50, seed=5) == take(50, seed=5)
    assert take(50, seed=5) != take(50, seed=6)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="corpus, training"):
        next(sentences(np.random.default_rng(0), part="test"))
