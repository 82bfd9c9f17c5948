"""Training, validation and test clips, so that nothing in one is known from another.

Neighbouring sentences of a recording share room, level and subject, so whole stretches ("blocks")
of a recording go to one split. Which one depends on a hash of speaker, source and block alone:
adding recordings moves no block that was there before. A text that stands in several splits goes
to one of them whole, training before validation before test, so no text is known from another.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kamerton.config.schema import DatasetParams
from kamerton.core.errors import InputEmptyError
from kamerton.data.manifest import SPLITS, Split

_HASH_BYTES = 8
_FEWEST_BLOCKS = len(SPLITS)
_SHORTEST_BLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SplitItem:
    """A clip as the split sees it; ``start_seconds`` counts from the start of its source."""

    id: str
    speaker: str
    source: str
    start_seconds: float
    text: str


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
    one empty, it gets the clips of the text with the lowest draw.

    Raises:
        InputEmptyError: there are fewer than three different texts.
    """
    if len({item.text for item in items}) < _FEWEST_BLOCKS:
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
    _one_split_per_text(items, splits)
    _fill_from_texts(items, splits, params.split_seed)
    return splits


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


def _one_split_per_text(items: Iterable[SplitItem], splits: dict[str, Split]) -> None:
    """Move clips so that all of one text are in the first of SPLITS that any of them is in."""
    homes: dict[str, set[Split]] = defaultdict(set)
    for item in items:
        homes[item.text].add(splits[item.id])
    for item in items:
        splits[item.id] = min(homes[item.text], key=SPLITS.index)


def _fill_from_texts(items: Sequence[SplitItem], splits: dict[str, Split], seed: int) -> None:
    """Give an empty split all clips of one text, from a split that has other texts too."""
    for wanted in ("test", "val", "train"):
        texts: dict[Split, set[str]] = defaultdict(set)
        for item in items:
            texts[splits[item.id]].add(item.text)
        if texts[wanted]:
            continue
        spare = [text for here in texts.values() if len(here) > 1 for text in here]
        moved = min(spare, key=lambda text: (draw(seed, text), text))
        splits.update({item.id: wanted for item in items if item.text == moved})
