"""Several clips in one window against one window per clip: time, and words.

    python -m benchmarks.transcription [--clips 50] [--repeats 4] [--seed 2026] [--minutes 12]

Time is of the whole stage, reading the clips included, on clips of 5 s with weights of the size of
Whisper tiny as 8-bit integers on one thread. The weights are random and made here, so what they say
is replaced by a script once the work is done: 16 tokens are decoded for each clip, and one clip in
five of a shared window is not answered well, so that a fifth is heard again. The baseline is one
window per clip in the same run. Words are those of the toy recogniser on a demo corpus made here,
scored against its truth.
"""

import argparse
import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import soundfile
from numpy.typing import NDArray

from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.files import write_jsonl
from kamerton.data.attribution import TimedText, WindowAnswer, compression_ratio
from kamerton.data.shards import TarWriter
from kamerton.data.transcription import RATE_HZ, Recognition, load_recogniser
from kamerton.data.windows import GAP_SECONDS
from kamerton.demo.corpus import make_corpus
from kamerton.demo.run import CORPUS_MINUTES, CORPUS_SEED
from kamerton.demo.score import score_files
from kamerton.demo.toy_whisper.ct2 import convert
from kamerton.stages import transcribe as stage
from kamerton.stages.segment import segment

CLIP_SECONDS = 5.0
CLIP_RATE_HZ = 22050
TOKENS_PER_CLIP = 16
TIMES_PER_CLIP = 2
FULL_WINDOW = 5  # clips; of so many the middle one is not answered well
LEAST_RATIO = 2.5
MOST_WER_DIFFERENCE = 0.01
ROOT = Path(__file__).parents[1]
TOY = ROOT / "assets" / "toy-whisper"
SENTENCE = "sixteen tokens of ordinary speech take about five seconds"

Fault = Literal["straddles", "unsure"]
Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of processor and of the clock, and what was heard how."""

    cpu: float
    wall: float
    report: stage.TranscribeReport


class FixedLength:
    """CTranslate2's model, made to decode a set number of tokens, no more and no fewer."""

    def __init__(self, model: Any, end_of_text: int) -> None:
        self._model, self._end = model, end_of_text
        self.tokens = TOKENS_PER_CLIP
        self.decoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, features: Any, prompts: list[list[int]], **options: Any) -> Any:
        """As always, but for the number of tokens."""
        longest = max(len(prompts[0]) + self.tokens, 2 * self.tokens)
        options |= {"suppress_tokens": [-1, self._end], "max_length": longest}
        results = self._model.generate(features, prompts, **options)
        self.decoded += sum(len(result.sequences_ids[0]) for result in results)
        return results


class Scripted:
    """Does the recogniser's whole work, then says what the script wants."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        whisper = inner._model
        self.fixed = FixedLength(whisper.model, whisper.hf_tokenizer.token_to_id("<|endoftext|>"))
        whisper.model = self.fixed
        self._inner, self._fault = inner, fault
        self.windows_at_once = inner.windows_at_once

    def transcribe(self, waves: Sequence[Wave], language: str | None = None) -> list[Recognition]:
        """Hear each, and say the same of all."""
        self.fixed.tokens = TOKENS_PER_CLIP
        self._inner.transcribe(waves, language)
        ratio = compression_ratio(SENTENCE)
        return [Recognition(SENTENCE, language or "en", -0.2, 0.0, ratio, 0.0) for _ in waves]

    def decode_windows(
        self, waves: Sequence[Wave], language: str | None = None
    ) -> list[WindowAnswer]:
        """Decode for the clips of the fullest window, in all of them."""
        counts = [_clips_in(wave) for wave in waves]
        self.fixed.tokens = max(counts) * (TOKENS_PER_CLIP + TIMES_PER_CLIP)
        self._inner.decode_windows(waves, language)
        return [self._answer(count) for count in counts]

    def _answer(self, count: int) -> WindowAnswer:
        step = CLIP_SECONDS + GAP_SECONDS
        texts = [
            TimedText(at * step, at * step + CLIP_SECONDS, SENTENCE, (-0.2,) * TOKENS_PER_CLIP)
            for at in range(count)
        ]
        if count == FULL_WINDOW:
            middle = texts.pop(count // 2)
            if self._fault == "unsure":
                unsure = TimedText(middle.start_seconds, middle.end_seconds, SENTENCE, (-2.0,))
                texts.insert(count // 2, unsure)
        return WindowAnswer(tuple(texts), 0.0, ended=True)

    def language_probabilities(self, wave: Wave) -> dict[str, float]:
        """Not asked for here."""
        del wave
        return {"en": 1.0}


def _clips_in(window: Wave) -> int:
    step = CLIP_SECONDS + GAP_SECONDS
    return round((len(window) / RATE_HZ + GAP_SECONDS) / step)


def make_weights(folder: Path) -> Path:
    """Random weights of the size of Whisper's tiny.en, as CTranslate2 reads them."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.01)
    saved = folder / "tiny.pt"
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, saved)
    convert(saved, folder / "tiny")
    saved.unlink()
    return folder / "tiny"


def make_clips(folder: Path, count: int) -> Path:
    """A folder of clips as the segment stage writes it: noise, each clip another."""
    random = np.random.default_rng(0)
    length = round(CLIP_SECONDS * CLIP_RATE_HZ)
    rows: list[dict[str, Any]] = []
    with TarWriter(folder / "clips" / "audio" / "noise.tar") as tar:
        for number in range(count):
            wave = 0.05 * random.standard_normal(length)
            payload = io.BytesIO()
            soundfile.write(payload, wave, CLIP_RATE_HZ, format="FLAC", subtype="PCM_16")
            flac, name = payload.getvalue(), f"{number:016x}"
            place = tar.add(f"{name}.flac", flac)
            rows.append(
                {
                    "id": name,
                    "file": f"audio/{place.shard}",
                    "offset_bytes": place.offset_bytes,
                    "size_bytes": place.size_bytes,
                    "audio_sha256": hashlib.sha256(flac).hexdigest(),
                    "pcm_sha256": name * 4,
                    "source": "noise.wav",
                    "source_sha256": "0" * 64,
                    "start_sample": number * length,
                    "end_sample": (number + 1) * length,
                    "sample_rate_hz": CLIP_RATE_HZ,
                    "duration_seconds": CLIP_SECONDS,
                    "snr_db": 30.0,
                    "forced_cut": False,
                    "status": "kept",
                    "reasons": [],
                }
            )
    write_jsonl(folder / "clips" / "clips.jsonl", rows)
    return folder / "clips"


def measure(work: Callable[[], stage.TranscribeReport]) -> Cost:
    """One run's cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    report = work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall, report)


def time_packing(folder: Path, clips: int, repeats: int) -> list[str]:
    """Print the table of times; return what does not hold."""
    model, clip_folder = make_weights(folder), make_clips(folder, clips)
    base = {"backend": "faster-whisper", "model": str(model), "threads": 1, "temperatures": [0.0]}
    one = Params().with_overrides({"transcribe": {**base, "pack": False}})
    packed = Params().with_overrides({"transcribe": {**base, "pack": True}})
    runs: dict[str, tuple[Params, Fault]] = {
        "one window per clip": (one, "straddles"),
        "packed, a fifth again (straddling)": (packed, "straddles"),
        "packed, a fifth again (all alone)": (packed, "unsure"),
    }
    spent: dict[str, list[Cost]] = {name: [] for name in runs}
    for turn in range(repeats):  # in turn, so that what else the machine does strikes all alike
        note(f"round {turn + 1} of {repeats}")
        for name, (params, fault) in runs.items():
            scripted = Scripted(load_recogniser(params.transcribe, "en"), fault)
            written = folder / "t.jsonl"
            with mock.patch.object(stage, "load_recogniser", return_value=scripted):
                cost = measure(partial(stage.transcribe, clip_folder, written, params, force=True))
            assert scripted.fixed.decoded >= TOKENS_PER_CLIP * clips
            spent[name].append(cost)
    return report_times(spent, clips)


def report_times(spent: dict[str, list[Cost]], clips: int) -> list[str]:
    """The table, the ratios to its first row, and what does not hold."""
    rounds = len(next(iter(spent.values())))
    print(
        f"\n{rounds} times {clips} clips of {CLIP_SECONDS:g} s, tiny int8, 1 thread, mean of all:"
    )
    print(
        f"{'':<36} {'windows':>7} {'alone':>5} {'again':>6} {'CPU s':>7} {'wall s':>7} "
        f"{'ratio':>6} {'of each round':>14}"
    )
    baseline = [cost.cpu for cost in next(iter(spent.values()))]
    ratios = []
    for name, costs in spent.items():
        report = costs[0].report
        cpu, wall = (
            sum(values) / rounds for values in zip(*((c.cpu, c.wall) for c in costs), strict=True)
        )
        each = [one / cost.cpu for one, cost in zip(baseline, costs, strict=True)]
        ratios.append(sum(baseline) / rounds / cpu)
        print(
            f"{name:<36} {report.windows:>7} {clips - report.packed:>5} "
            f"{sum(report.redone.values()) / clips:>6.0%} {cpu:>7.1f} {wall:>7.1f} "
            f"{ratios[-1]:>6.2f} {min(each):>6.2f} to {max(each):.2f}"
        )
    holds = ratios[1] >= LEAST_RATIO
    print(f"packed is {ratios[1]:.2f} times as fast (must be {LEAST_RATIO:g}): {verdict(holds)}")
    return [] if holds else ["time"]


def compare_words(folder: Path, seed: int, minutes: float, backend: str) -> list[str]:
    """Print the word error rates; return what does not hold."""
    note("making a demo corpus")
    make_corpus(folder / "raw", folder / "truth", seed=seed, minutes=minutes)
    demo = load_params(ROOT / "params.yaml")
    params = demo.with_overrides({"transcribe": {"backend": backend, "model": str(TOY)}})
    note("cutting it")
    segment(folder / "raw", folder / "cut", folder / "segment.html", params)
    print(f"\ntoy recogniser ({backend}) on {minutes:g} minutes of demo corpus:")
    print(f"{'':<20} {'WER':>7} {'kept':>5} {'windows':>7} {'again':>22} {'CPU s':>7}")
    rates = []
    for name, pack in (("one window per clip", False), ("packed", True)):
        note(name)
        given = params.with_overrides({"transcribe": {"pack": pack}})
        written = folder / f"{pack}.jsonl"
        cost = measure(partial(stage.transcribe, folder / "cut", written, given))
        rates.append(score_files(folder / "truth", folder / "cut", written).metrics())
        again = sum(cost.report.redone.values())
        shown = f"{again} of {cost.report.clips}, {cost.report.redone_alone} alone" if pack else "-"
        print(
            f"{name:<20} {rates[-1]['transcripts_wer']:>7.2%} {cost.report.kept:>5} "
            f"{cost.report.windows:>7} {shown:>22} {cost.cpu:>7.1f}"
        )
        if cost.report.redone:
            print(f"  again because: {cost.report.redone}")
    difference = rates[1]["transcripts_wer"] - rates[0]["transcripts_wer"]
    holds = difference <= MOST_WER_DIFFERENCE
    print(f"packing adds {100 * difference:+.2f} points of WER (at most 1): {verdict(holds)}")
    return [] if holds else ["words"]


def verdict(holds: bool) -> str:
    """One word."""
    return "holds" if holds else "FAILS"


def note(text: str) -> None:
    """Progress, for people who wait."""
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Both comparisons; 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=50, help="clips of 5 s to be timed")
    parser.add_argument("--repeats", type=int, default=4, help="runs of each kind")
    parser.add_argument("--seed", type=int, default=CORPUS_SEED, help="of the demo corpus")
    parser.add_argument("--minutes", type=float, default=CORPUS_MINUTES, help="of demo corpus")
    parser.add_argument("--backend", default="faster-whisper", help="of the toy recogniser")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        missed = time_packing(folder, options.clips, options.repeats)
        missed += compare_words(folder, options.seed, options.minutes, options.backend)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
