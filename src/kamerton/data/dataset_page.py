"""The dataset on one page: what was kept, what was not and why, and how it sounds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kamerton.data.filters import REASONS
from kamerton.data.joining import Rejection
from kamerton.data.manifest import SPLITS, Dataset, Row
from kamerton.report.figures import ACCENT, new_figure, to_png
from kamerton.report.page import Page

_HEARD_CLIPS = 3
_EXAMPLES = 3
_BINS = 30
_SECONDS_A_MINUTE = 60.0


def render(dataset: Dataset, rejections: Sequence[Rejection]) -> str:
    """The page as HTML; equal datasets give equal bytes."""
    rows, card = dataset.rows(), dataset.card
    page = Page(f"Dataset {card['name']}", f"content {card['content_sha256'][:16]}")
    page.verdict(_verdict(rows, rejections), ok=None)
    page.facts(
        {
            "clips": str(len(rows)),
            "hours": f"{card['hours']:.2f}",
            "clips dropped": str(len(rejections)),
            "language": str(card["language"]),
            "rate": f"{card['sample_rate_hz']} Hz",
        }
    )
    _splits(page, rows, card)
    _rejected(page, rejections)
    _lengths(page, rows)
    _sound(page, dataset)
    return page.render()


def _minutes(items: Iterable[Row | Rejection]) -> float:
    return sum(item.duration_seconds or 0.0 for item in items) / _SECONDS_A_MINUTE


def _verdict(rows: Sequence[Row], rejections: Sequence[Rejection]) -> str:
    kept = f"Kept {_minutes(rows):.1f} minutes in {len(rows)} clips"
    if not rejections:
        return f"{kept}; nothing was dropped."
    counts = Counter(reason for rejection in rejections for reason in rejection.reasons)
    causes = ", ".join(f"{name} {count}" for name, count in _by_count(counts))
    return f"{kept}, dropped {_minutes(rejections):.1f} minutes in {len(rejections)}: {causes}."


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _splits(page: Page, rows: Sequence[Row], card: Mapping[str, Any]) -> None:
    rule = card["split_rule"]
    page.section(
        "Splits",
        f"Stretches of {rule['block_seconds']:g} s of a recording go to one split together, "
        f"drawn by a hash with seed {rule['split_seed']}; no text is in two splits.",
    )
    members = {split: [row for row in rows if row.split == split] for split in SPLITS}
    page.table(
        ["split", "clips", "minutes", "share of time", "recordings"],
        [
            [
                split,
                len(inside),
                _minutes(inside),
                f"{_minutes(inside) / _minutes(rows):.1%}",
                len({row.source for row in inside}),
            ]
            for split, inside in members.items()
        ],
    )


def _rejected(page: Page, rejections: Sequence[Rejection]) -> None:
    page.section("What was dropped, and why")
    if not rejections:
        page.text("Nothing.")
        return
    by_reason: dict[tuple[str, str], list[Rejection]] = {}
    for rejection in rejections:
        for reason in rejection.reasons:
            by_reason.setdefault((rejection.by, reason), []).append(rejection)
    ordered = sorted(by_reason.items(), key=lambda item: (-_minutes(item[1]), item[0]))
    page.table(
        ["stage", "reason", "clips", "minutes", "meaning"],
        [
            [by, reason, len(members), _minutes(members), REASONS.get(reason, "")]
            for (by, reason), members in ordered
        ],
        "A clip with several reasons counts under each.",
    )
    examples = [r for _, members in ordered for r in _longest(members)]
    page.table(
        ["recording", "at (s)", "seconds", "reasons", "text"],
        [
            [r.source, r.start_seconds, r.duration_seconds, ", ".join(r.reasons), r.text]
            for r in dict.fromkeys(examples)
        ],
        f"The longest {_EXAMPLES} of each reason; all {len(rejections)} are in rejected.jsonl.",
    )


def _longest(rejections: Sequence[Rejection]) -> list[Rejection]:
    return sorted(rejections, key=lambda r: (-(r.duration_seconds or 0.0), r.id))[:_EXAMPLES]


def _lengths(page: Page, rows: Sequence[Row]) -> None:
    page.section("Lengths and tempo")
    figure, (left, right) = new_figure(9, 2.6, columns=2)
    left.hist([row.duration_seconds for row in rows], bins=_BINS, color=ACCENT)
    left.set(xlabel="seconds", ylabel="clips")
    tempos = [len(row.text) / row.duration_seconds for row in rows]
    right.hist(tempos, bins=_BINS, color=ACCENT)
    right.set(xlabel="characters per second")
    page.figure(to_png(figure), "length and tempo of the clips that were kept")


def _sound(page: Page, dataset: Dataset) -> None:
    page.section("Listen", "The first clips of each split, with the text that is trained on.")
    for split in SPLITS:
        players = [(row.text, *dataset.audio(row)) for row in dataset.rows(split)[:_HEARD_CLIPS]]
        page.audio(players, split)
