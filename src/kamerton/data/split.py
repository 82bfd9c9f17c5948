"""Training, validation and test clips, so that nothing in one is known from another.

Neighbouring sentences of a recording share room, level and subject, so whole stretches ("blocks")
of a recording go to one split. Which one depends on a hash of speaker, source and block alone:
adding recordings moves no block that was there before. Words that stand in several splits go to
one of them whole, training before validation before test, so no text is known from another; stops
and capitals make no other text of them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kamerton.config.schema import DatasetParams
from kamerton.core.errors import InputEmptyError
from kamerton.data.manifest import SPLITS, Split
from kamerton.text.normalise import bare_words

_HASH_BYTES = 8
_FEWEST_BLOCKS = len(SPLITS)
_SHORTEST_BLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SplitItem:
    """A clip as the split sees it.

    ``start_seconds`` counts from the start of its source; ``text`` is compared by its words,
    ``sound`` is a hash of the samples.
    """

    id: str
    speaker: str
    source: str
    start_seconds: float
    text: str
    sound: str

    @property
    def words(self) -> str:
        """The text without stops and capitals; of nothing else, the text itself."""
        return bare_words(self.text) or self.text


Block = tuple[str, str, int]


def draw(seed: int, *key: str | int) -> float:
    """A number in [0, 1) that depends on the seed and the key only."""
    text = "\0".join(str(part) for part in (seed, *key))
    digest = hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") / float(2 ** (8 * _HASH_BYTES))


def split_clips(items: Sequence[SplitItem], params: DatasetParams) -> dict[str, Split]:
    """The split of every clip, by id; each split gets at least one clip.

    A dataset too small for the draw to fill validation or test gives each the block with the
    lowest draw, after blocks are halved until there are three. If texts that repeat still leave
    one empty, it gets the clips of the text with the lowest draw. Clips of equal samples stay
    together as those of equal words do.

    Raises:
        InputEmptyError: there are fewer than three different texts.
    """
    groups = _groups(items)
    if len(set(groups.values())) < _FEWEST_BLOCKS:
        raise InputEmptyError(
            "the dataset",
            wanted="three different texts, one for each of train, val and test",
            hint="add recordings, or loosen the filters of the sections transcribe and dataset",
        )
    blocks = _blocks(items, params.block_seconds)
    by_block = _fill_empty_splits(
        {block: _drawn_split(draw(params.split_seed, *block), params) for block in blocks},
        {block: draw(params.split_seed, *block) for block in blocks},
    )
    splits = {item.id: by_block[block] for block, members in blocks.items() for item in members}
    _one_split_per_group(groups, splits)
    _fill_from_groups(groups, splits, params.split_seed)
    return splits


def _groups(items: Iterable[SplitItem]) -> dict[str, str]:
    """Clips that share words or samples, or a third that does with each: id -> name of the group.

    The name is the first of their words, by which the group is the same in a larger dataset.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    items = list(items)
    for item in items:
        ends = sorted((root(("sound", item.sound)), root(("words", item.words))))
        parent[ends[0]] = ends[1]  # "words" sorts after "sound"
    names: dict[tuple[str, str], str] = {}
    for item in items:
        top = root(("words", item.words))
        names[top] = min(names.get(top, item.words), item.words)
    return {item.id: names[root(("words", item.words))] for item in items}


def _blocks(items: Iterable[SplitItem], seconds: float) -> dict[Block, list[SplitItem]]:
    """Clips by the stretch that they start in; shorter stretches where there are too few."""
    items = list(items)
    while True:
        blocks: dict[Block, list[SplitItem]] = defaultdict(list)
        for item in items:
            blocks[item.speaker, item.source, int(item.start_seconds // seconds)].append(item)
        if len(blocks) >= _FEWEST_BLOCKS or seconds <= _SHORTEST_BLOCK_SECONDS:
            return blocks
        seconds /= 2


def _drawn_split(number: float, params: DatasetParams) -> Split:
    if number < params.test_fraction:
        return "test"
    return "val" if number < params.test_fraction + params.val_fraction else "train"


def _fill_empty_splits(
    splits: Mapping[Block, Split], draws: Mapping[Block, float]
) -> dict[Block, Split]:
    """Give an empty split the block of lowest draw from a split that has more than one."""
    filled = dict(splits)
    for wanted in ("test", "val", "train"):
        if wanted in filled.values():
            continue
        spare = [b for b in filled if list(filled.values()).count(filled[b]) > 1]
        if spare:
            filled[min(spare, key=lambda block: (draws[block], block))] = wanted
    return filled


def _one_split_per_group(groups: Mapping[str, str], splits: dict[str, Split]) -> None:
    """Move clips so that all of one group are in the first of SPLITS that any of them is in."""
    homes: dict[str, set[Split]] = defaultdict(set)
    for clip, group in groups.items():
        homes[group].add(splits[clip])
    for clip, group in groups.items():
        splits[clip] = min(homes[group], key=SPLITS.index)


def _fill_from_groups(groups: Mapping[str, str], splits: dict[str, Split], seed: int) -> None:
    """Give an empty split all clips of one group, from a split that has other groups too."""
    for wanted in ("test", "val", "train"):
        inside: dict[Split, set[str]] = defaultdict(set)
        for clip, group in groups.items():
            inside[splits[clip]].add(group)
        if inside[wanted]:
            continue
        spare = [group for here in inside.values() if len(here) > 1 for group in here]
        moved = min(spare, key=lambda group: (draw(seed, group), group))
        splits.update({clip: wanted for clip, group in groups.items() if group == moved})
