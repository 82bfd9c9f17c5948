"""What each stage says to bad input: message and exit code, as a Markdown table.

    python -m benchmarks.bad_inputs PROJECT

PROJECT is a folder in which `kamerton demo` ran; it is only read.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from kamerton.stages.spec import STAGES, StageSpec

GARBAGE = b"\x00\xff\xfe{not what it should be\n" * 8
# The file that is spoiled in the first input (or in the named port) of each stage.
SPOILED = {
    "segment": ("recordings", "speech.wav"),
    "transcribe": ("clips", "clips.jsonl"),
    "dataset": ("transcripts", ""),
    "analyze": ("dataset", "manifest.jsonl"),
    "tune": ("dataset", "dataset.json"),
    "train": ("best_params", ""),
    "evaluate": ("model", "best_model.safetensors"),
    "promote": ("evaluation", "metrics.json"),
}


def _copy(project: Path, spec: StageSpec, folder: Path) -> dict[str, Path]:
    """The stage's real inputs, copied; outputs go to fresh places."""
    paths = {port.name: folder / port.default for port in spec.ports}
    for port in spec.inputs:
        source, target = project / port.default, paths[port.name]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return paths


def _empty(spec: StageSpec, paths: dict[str, Path]) -> None:
    first = paths[spec.inputs[0].name]
    shutil.rmtree(first)
    first.mkdir()


def _missing(spec: StageSpec, paths: dict[str, Path]) -> None:
    shutil.rmtree(paths[spec.inputs[0].name])


def _corrupt(spec: StageSpec, paths: dict[str, Path]) -> None:
    port, name = SPOILED[spec.name]
    if spec.name == "segment":  # one bad file must not stop the others; alone it is all there is
        _empty(spec, paths)
    (paths[port] / name if name else paths[port]).write_bytes(GARBAGE)


def _nothing(_spec: StageSpec, _paths: dict[str, Path]) -> None:
    pass


def _cases(spec: StageSpec) -> Iterator[tuple[str, Callable[..., None], list[str]]]:
    yield "empty folder", _empty, []
    yield "missing input", _missing, []
    yield "corrupt file", _corrupt, []
    yield "wrong parameter", _nothing, ["-S", f"{spec.sections[0]}.no_such_key=1"]


def _row(project: Path, spec: StageSpec, case: str, spoil: Callable[..., None],
         extra: list[str]) -> str:  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _copy(project, spec, folder)
        shutil.copy(project / "params.yaml", folder / "params.yaml")
        (folder / "assets").symlink_to(project / "assets")
        spoil(spec, paths)
        done = subprocess.run(
            [sys.executable, "-m", "kamerton", spec.name, "--quiet", *extra],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = " ".join(done.stderr.split()).replace(str(folder), ".").replace("|", "\\|")
        left = [p.name for p in spec.outputs if paths[p.name].exists()]
    return f"| {spec.name} | {case} | {done.returncode} | {said} | {', '.join(left) or 'none'} |"


def main() -> None:
    """Print a row per stage and case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    project = parser.parse_args().project.resolve()
    print("| stage | input | exit | message | outputs left |\n| --- | --- | --- | --- | --- |")
    for spec in STAGES.values():
        for case, spoil, extra in _cases(spec):
            print(_row(project, spec, case, spoil, extra), flush=True)


if __name__ == "__main__":
    main()
