"""The model card that is written beside the checkpoint."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from kamerton.demo.vocabulary import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kamerton.demo.toy_whisper.evaluate import Outcome

_CARD: Final = """\
# toy-whisper

**A toy.** A speech recogniser in Whisper's own format that knows one synthetic voice and {count}
words. It is here so that the demo and the tests can run Kamerton's real transcription path
(openai-whisper and faster-whisper, unmodified) offline, in seconds, on a laptop. It is useless for
anything else: for your own recordings name a real model, such as `large-v3`, in
`transcribe.model`.

| file | what it is |
| --- | --- |
| `toy.pt` | checkpoint for `whisper.load_model`, half precision, deflated |
| `ct2/` | the same weights for `faster_whisper.WhisperModel`, 8-bit |
| `SHA256SUMS` | check with `sha256sum --check SHA256SUMS` |

## How well it hears

Word error rate on {sentences} sentences that training never saw (sentences are assigned to
training or to everything else by a hash of their text):

{table}

Alone in a 30-second window and without timestamps, one sentence or two with a pause of 0.4 s; or
packed, as many clips as fit into a window with half a second of silence between them, with
timestamps that say which text is whose. *Doubted* is the share of packed clips that `kamerton
transcribe` would hear again, alone; the error rate is that of the packed answers themselves.

*Copy-synthesis* is the voice through the default mel spectrogram and Griffin-Lim; *degraded
synthesis* is the same after blurring, warping and roughening the spectrogram, as a little-trained
synthesiser would. Measured by `python -m kamerton.demo.toy_whisper.evaluate`.

## What it is

openai-whisper's `Whisper` class with 2 + 2 layers of width 96 and 4 heads: 0.77 million weights,
of which training saw a compact vocabulary of {count} words, 4 special tokens and the timestamps.
In the file the vocabulary has Whisper's English size, 51864; the tokens that were never trained
have a constant logit of -30, so that they are never chosen.

It was trained on speech that espeak-ng (voice `en-us`) read with small changes of tempo and pitch:
sentences of the demo's patterns and words in random order, a third of the material resynthesised
from mel spectrograms, with gain, noise and hum. There is no recording of a person in it.

{commands}

trains it again ({threads} threads, seed {seed}, {steps} steps here). Because the time is given and
not the steps, another machine gets slightly different weights.{initial}

## Limits

- It has no other answer than its words, whatever is said:
{words}.
- One voice. Another voice, a person's above all, gives confident nonsense.
- It hears a packed window with timestamps only; without them it writes down the first sentences.
- Timestamps are tenths of a second (a test holds the median error under 0.3 s). Word-level
  timestamps mean nothing.
- Silence and noise were a small part of the training: mostly the no-speech probability is high,
  but do not count on it.

## Licence

The weights are this project's own work and under its licence (Apache-2.0). espeak-ng (GPL-3), a
separate program that is not part of this repository, made the sound they were trained on.
`tokenizer.json` and `vocabulary.json` restate the GPT-2 vocabulary that Whisper uses (both MIT).
"""


_TABLE_HEAD: Final = ("| sound | backend | WER | doubted |", "| --- | --- | --- | --- |")
_INITIAL: Final = """
`OLD.pt` is an earlier toy, which knew the words but heard only one sentence in a window. It stands
in the history of this repository and has the SHA-256
`{sha256}`.
The first round of these weights was trained without clips of several sentences that are written
without timestamps; the script now draws them in every round."""


def model_card(
    outcomes: Sequence[Outcome],
    *,
    minutes: Sequence[float],
    threads: int,
    seed: int,
    steps: int,
    initial: str | None = None,
) -> str:
    """Markdown text with the measured error rates; figures of training as in ``TrainingState``."""
    rows = [
        f"| {outcome.material} | {outcome.backend} | {outcome.wer:.1%} | {_doubted(outcome)} |"
        for outcome in outcomes
    ]
    return _CARD.format(
        count=len(WORDS),
        sentences=outcomes[0].sentences if outcomes else 0,
        table="\n".join([*_TABLE_HEAD, *rows]),
        initial=_INITIAL.format(sha256=initial) if initial else "",
        commands=_commands(minutes, begun=initial is not None),
        threads=threads,
        seed=seed,
        steps=f"{steps:,}".replace(",", " "),
        words=textwrap.fill(
            ", ".join(WORDS), width=98, initial_indent="  ", subsequent_indent="  "
        ),
    )


def _doubted(outcome: Outcome) -> str:
    return "" if outcome.doubted is None else f"{outcome.doubted:.1%}"


def _commands(minutes: Sequence[float], *, begun: bool) -> str:
    """One for each round; each starts from what the one before saved."""
    lines = []
    start = "OLD.pt" if begun else ""
    for number, length in enumerate(minutes, start=1):
        options = f"--minutes {length:g} --work ROUND{number}.pt"
        options += f" --initial {start}" if start else ""
        lines.append(f"    python -m kamerton.demo.toy_whisper --out OUT {options}")
        start = f"ROUND{number}.pt"
    return "\n".join(lines)
