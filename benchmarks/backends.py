"""Both recognition backends on the demo's clips: word error rate against the truth, and time.

    python -m benchmarks.backends [PROJECT]

PROJECT is a folder in which `kamerton demo` ran. The ratio's baseline is openai-whisper,
measured in the same run on the same clips.
"""

import argparse
import tempfile
import time
from pathlib import Path

from kamerton.config.loading import load_params
from kamerton.demo.score import score_files
from kamerton.stages import stage_function

BACKENDS = ("whisper", "faster-whisper")


def main() -> None:
    """Print a line per backend, then the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, nargs="?", default=Path())
    project = parser.parse_args().project.resolve()
    params = load_params(project / "params.yaml")
    model = str(project / params.transcribe.model)
    rates, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in BACKENDS:
            written = Path(folder) / f"{backend}.jsonl"
            changed = params.with_overrides({"transcribe": {"backend": backend, "model": model}})
            started = time.perf_counter()
            stage_function("transcribe")(project / "data/clips", written, changed)
            seconds[backend] = time.perf_counter() - started
            score = score_files(project / "data/truth", project / "data/clips", written)
            rates[backend] = score.metrics()["transcripts_wer"]
            print(f"{backend:<15} WER {rates[backend]:.2%}  {seconds[backend]:.1f} s", flush=True)
    print(f"difference of WER: {abs(rates[BACKENDS[0]] - rates[BACKENDS[1]]):.2%}")
    ratio = seconds[BACKENDS[0]] / seconds[BACKENDS[1]]
    print(f"faster-whisper is {ratio:.2f} times as fast as whisper")


if __name__ == "__main__":
    main()
