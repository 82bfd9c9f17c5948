from collections import defaultdict

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kamerton.config.schema import DatasetParams
from kamerton.core.errors import InputEmptyError
from kamerton.data.manifest import SPLITS
from kamerton.data.split import SplitItem, draw, split_clips

PARAMS = DatasetParams(block_seconds=30.0, test_fraction=0.2, val_fraction=0.1)


def clip(number, source="a.wav", start=None, text=None, sound=None):
    return SplitItem(
        id=f"{source}-{number}",
        speaker="s",
        source=source,
        start_seconds=5.0 * number if start is None else start,
        text=text or f"text {source} {number}",
        sound=sound or f"sound {source} {number}",
    )


@st.composite
def corpora(draw_from):
    sources = draw_from(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    items = []
    for source in sources:
        count = draw_from(st.integers(1, 25))
        for number in range(count):
            text = draw_from(st.sampled_from(["yes", "Yes!", "no", "well then"]) | st.none())
            sound = draw_from(st.sampled_from(["bell"]) | st.none())
            items.append(clip(number, source, text=text, sound=sound))
    assume(len(set(components(items).values())) >= 3)
    return items


def components(items):
    """Clips connected by words or by sound: id -> name of the lowest id that is reached.

    Labels spread until nothing changes; no union-find, so that it can find fault with one.
    """
    label = {item.id: item.id for item in items}
    links = defaultdict(list)
    for item in items:
        links["words", item.words].append(item.id)
        links["sound", item.sound].append(item.id)
    while True:
        before = dict(label)
        for linked in links.values():
            lowest = min(label[clip] for clip in linked)
            label.update(dict.fromkeys(linked, lowest))
        if label == before:
            return label


@given(corpora(), st.integers(0, 1000))
def test_every_clip_has_one_split_and_every_split_a_clip(items, seed):
    splits = split_clips(items, PARAMS.model_copy(update={"split_seed": seed}))
    assert set(splits) == {item.id for item in items}
    assert set(splits.values()) == set(SPLITS)


@given(corpora())
def test_no_words_and_no_sound_are_in_two_splits(items):
    splits = split_clips(items, PARAMS)
    homes = defaultdict(set)
    for item in items:
        homes["words", "".join(filter(str.isalnum, item.text.lower()))].add(splits[item.id])
        homes["sound", item.sound].add(splits[item.id])
    assert all(len(home) == 1 for home in homes.values())


@given(corpora(), st.randoms())
def test_the_order_of_clips_does_not_matter(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    assert split_clips(shuffled, PARAMS) == split_clips(items, PARAMS)


def large(sources, repeated=False):
    return [
        clip(number, source, text="yes" if repeated and number % 9 == 0 else None)
        for source in sources
        for number in range(60)
    ]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 10))
def test_growth_moves_no_clip_that_was_there(seed, added):
    params = PARAMS.model_copy(update={"split_seed": seed})
    before = large([f"old{n}" for n in range(12)])
    old = split_clips(before, params)
    new = split_clips(before + large([f"new{n}" for n in range(added)]), params)
    assert {item.id: new[item.id] for item in before} == old


@settings(max_examples=25)
@given(corpora(), st.integers(0, 10**6), st.integers(1, 6))
def test_growth_moves_only_clips_that_it_shares_words_or_sound_with(drawn, seed, added):
    """Whatever the old clips were: no draw depends on how many there are."""
    params = PARAMS.model_copy(update={"split_seed": seed})
    before = [*drawn, *large([f"old{n}" for n in range(12)])]
    grown = [*before, *large([f"new{n}" for n in range(added)], repeated=True)]
    old, new = split_clips(before, params), split_clips(grown, params)
    label = components(grown)
    touched = {label[item.id] for item in grown if "new" in item.id}
    assert all(new[item.id] == old[item.id] for item in before if label[item.id] not in touched)


def test_a_clip_that_goes_moves_no_other():
    items = large([f"r{n}" for n in range(12)])
    whole = split_clips(items, PARAMS)
    rest = split_clips(items[1::2], PARAMS)
    assert rest == {item.id: whole[item.id] for item in items[1::2]}


def test_blocks_stay_whole():
    items = large([f"r{n}" for n in range(8)])
    splits = split_clips(items, PARAMS)
    homes = defaultdict(set)
    for item in items:
        homes[item.source, item.start_seconds // PARAMS.block_seconds].add(splits[item.id])
    assert all(len(home) == 1 for home in homes.values())


def test_a_repeated_text_moves_to_training_and_its_neighbours_stay():
    items = large([f"r{n}" for n in range(8)])
    repeated = large([f"r{n}" for n in range(8)], repeated=True)
    before, after = split_clips(items, PARAMS), split_clips(repeated, PARAMS)
    for item in repeated:
        assert after[item.id] == ("train" if item.text == "yes" else before[item.id])


def test_shares_are_those_asked_for():
    items = large([f"r{n}" for n in range(200)])
    splits = list(split_clips(items, PARAMS).values())
    assert splits.count("test") / len(splits) == pytest.approx(0.2, abs=0.03)
    assert splits.count("val") / len(splits) == pytest.approx(0.1, abs=0.02)


def test_another_seed_draws_another_split():
    items = large([f"r{n}" for n in range(8)])
    other = PARAMS.model_copy(update={"split_seed": PARAMS.split_seed + 1})
    assert split_clips(items, PARAMS) != split_clips(items, other)


def test_one_short_recording_still_fills_every_split():
    items = [clip(number, start=float(number)) for number in range(3)]
    assert sorted(split_clips(items, PARAMS).values()) == ["test", "train", "val"]


def test_a_small_dataset_gives_the_lowest_draws_away():
    params = DatasetParams(block_seconds=30.0, test_fraction=1e-9, val_fraction=1e-9)
    items = [clip(number, start=30.0 * number) for number in range(9)]
    by_draw = sorted(
        items, key=lambda i: draw(params.split_seed, "s", "a.wav", int(i.start_seconds // 30))
    )
    splits = split_clips(items, params)
    assert [splits[item.id] for item in by_draw] == ["test", "val"] + ["train"] * 7


def test_texts_are_moved_when_repetition_leaves_a_split_empty():
    # Every block holds the same three sentences, so no block can be set aside whole.
    items = [clip(n, start=10.0 * n, text=f"sentence {n % 3}") for n in range(30)]
    assert set(split_clips(items, PARAMS).values()) == set(SPLITS)


def test_fewer_than_three_texts_cannot_be_split():
    with pytest.raises(InputEmptyError, match="three different texts"):
        split_clips([clip(n, text=f"{n % 2}") for n in range(10)], PARAMS)
