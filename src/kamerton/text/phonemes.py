"""Normalised text as phonemes (IPA), by the program espeak-ng.

espeak-ng is GPL-3: it is called as a program where one is installed, never linked or brought along.
Training and speaking use the same function, so a voice hears of nothing that it was not taught.
"""

import re
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence

from kamerton.config.schema import TextParams
from kamerton.core.errors import PipelineError, ToolMissingError

PROGRAM = "espeak-ng"
_INSTALL = "install it (Debian, Ubuntu: apt-get install espeak-ng), or set text.phonemes: none"
# The program's names for languages where they are not ISO 639, or where there are several.
_VOICES = {"en": "en-us", "zh": "cmn", "no": "nb"}

# Stops that end a clause, with the spaces around them; a hyphen inside of a word is none.
_STOPS = re.compile(r"( *(?:[!(),.:;?]+|(?<![^ ])-(?![^ ]))[ !(),.:;?-]*)")
_QUOTES = str.maketrans("", "", '"')
_SWITCHES = re.compile(r"\([a-z-]+\)")  # "(en)": what follows was read by another language's rules
_LONGEST_LINE = 200  # the program breaks longer clauses where it likes

# Letters, tones and marks of the International Phonetic Alphabet that espeak-ng writes. One table
# for all languages, so that a voice can go on with another dataset.
IPA = (
    "abcdefghijklmnopqrstuvwxyzæçðøħŋœβθχ"
    "ɐɑɒɓɔɕɖɗɘəɚɛɜɝɞɟɠɡɢɣɤɥɦɧɨɪɫɬɭɮɯɰɱɲɳɴɵɶɸɹɺɻɽɾʀʁʂʃʄʈʉʊʋʌʍʎʏʐʑʒʔʕʘʙʛʜʝʟʡʢᵻᵊⱱǀǁǂǃ"
    "ˈˌːˑ˞ʰʲʷˠˤʼⁿˡ˥˦˧˨˩↑↓1234567"
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0308\u030a\u030b\u030c\u030f\u0318\u0319\u031a\u031c\u031d"
    "\u031e\u031f\u0320\u0324\u0325\u0329\u032a\u032c\u032f\u0330\u0334\u0339\u033a\u033b\u033c\u033d\u035c\u0361"
)


def pronounce(texts: Sequence[str], params: TextParams) -> list[str | None]:
    """Phonemes of normalised texts, or None for each where ``text.phonemes`` is ``none``.

    Stops and the pauses that they stand for are kept; quotation marks have no sound and go.

    Raises:
        ToolMissingError: espeak-ng is not installed.
        PipelineError: it knows no such language, or failed.
    """
    if params.phonemes == "none":
        return [None for _ in texts]
    # Clauses at even places, the stops between them at odd ones.
    parts = [_STOPS.split(text.translate(_QUOTES)) for text in texts]
    clauses = dict.fromkeys(clause for pieces in parts for clause in pieces[::2] if clause.strip())
    spoken = _speak(list(clauses), _VOICES.get(params.language, params.language))
    return [
        "".join(
            piece if place % 2 else spoken.get(piece, "") for place, piece in enumerate(pieces)
        ).strip()
        for pieces in parts
    ]


def program_version() -> str:
    """What the installed espeak-ng calls itself: phonemes differ between versions."""
    said = _run(["--version"], "").partition("Data at")[0]
    return said.rpartition(":")[2].strip()


_MOST_KNOWN = 100_000
_known: dict[tuple[str, str], str] = {}  # what was asked for before, by voice and clause


def _speak(clauses: Sequence[str], voice: str) -> dict[str, str]:
    """Phonemes of every clause; one process reads all that were not asked for before."""
    spoken = {clause: _known[voice, clause] for clause in clauses if (voice, clause) in _known}
    new = [clause for clause in clauses if clause not in spoken]
    spoken |= zip(new, _read(new, voice), strict=True)
    if len(_known) + len(new) > _MOST_KNOWN:
        _known.clear()
    _known.update({(voice, clause): spoken[clause] for clause in new})
    return spoken


def _read(clauses: Sequence[str], voice: str) -> list[str]:
    if not clauses:
        return []
    lines = [list(_lines(clause)) for clause in clauses]
    flat = [line for parts in lines for line in parts]
    said = _ask(flat, voice)
    if len(said) != len(flat):  # a line was too long for it: then each on its own
        said = [" ".join(_ask([line], voice)) for line in flat]
    answers = iter(said)
    return [_tidy(" ".join(next(answers) for _ in parts)) for parts in lines]


def _lines(clause: str) -> Iterator[str]:
    """The clause in pieces short enough, broken between words."""
    line = ""
    for word in clause.split():
        if line and len(line) + 1 + len(word) > _LONGEST_LINE:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line


def _ask(lines: Sequence[str], voice: str) -> list[str]:
    """One line of phonemes for every line of text, as the program answers."""
    arguments = ["-q", "--ipa", "-b", "1", "-v", voice]
    return _run(arguments, "".join(f"{line}\n" for line in lines)).splitlines()


def _tidy(phonemes: str) -> str:
    """One space between words; letters apart from their marks, but for c with a cedilla."""
    apart = unicodedata.normalize("NFD", _SWITCHES.sub("", phonemes)).replace("c\u0327", "ç")
    return " ".join(apart.split())


def _run(arguments: Sequence[str], text: str) -> str:
    try:
        done = subprocess.run(
            [PROGRAM, *arguments], input=text.encode(), capture_output=True, check=False
        )
    except OSError as error:
        raise ToolMissingError(PROGRAM, hint=_INSTALL) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise PipelineError(
            f"{PROGRAM} failed: {said or f'exit code {done.returncode}'}",
            hint=f"`{PROGRAM} --voices` lists its languages; text.phonemes: none does without it",
        )
    return done.stdout.decode()
