"""The voice pipeline for Kubeflow Pipelines: eight stages, one container each.

    python pipeline.py compile -o pipeline.yaml       # from params.yaml, default images
    python pipeline.py compile --profile gpu --set train.max_steps=20000
    python pipeline.py compile --check                # is pipeline.yaml up to date?

Every parameter section is a pipeline parameter (`train_params`, ...), one JSON object as text,
whose default is the section of params.yaml at the time of compiling. As text, because Kubeflow's
own dictionaries cannot hold null and turn whole numbers into fractions on the way.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

import components
from components.platform import PROFILES, WORKSPACE, Profile, apply_platform
from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.errors import PipelineError
from kamerton.core.files import write_text

NAME = "kamerton-voice"
CLUSTER_MLFLOW_URI = "http://mlflow:5000"  # the service in manifests/base, from the same namespace


def build(params: Params, profile: Profile, *, cache: bool = False) -> Any:
    """The pipeline with ``params`` as its defaults, each task placed by ``profile``."""
    default = {name: json.dumps(values) for name, values in params.model_dump(mode="json").items()}

    @dsl.pipeline(name=NAME, description="From a folder of recordings to a promoted voice.")
    def voice(
        recordings: str,
        segment_params: str = default["segment"],
        audio_params: str = default["audio"],
        transcribe_params: str = default["transcribe"],
        text_params: str = default["text"],
        dataset_params: str = default["dataset"],
        analyze_params: str = default["analyze"],
        tune_params: str = default["tune"],
        train_params: str = default["train"],
        evaluate_params: str = default["evaluate"],
        promote_params: str = default["promote"],
        tracking_params: str = default["tracking"],
        runs: str = f"{WORKSPACE}/runs",
    ) -> None:
        def place(stage: str, task: dsl.PipelineTask) -> Any:
            apply_platform(task, stage, profile, cache=cache)
            return task.outputs

        imported = dsl.importer(artifact_uri=recordings, artifact_class=dsl.Dataset, reimport=False)
        cut = place(
            "segment",
            components.segment(
                recordings=imported.output, segment_params=segment_params, audio_params=audio_params
            ),
        )
        written = place(
            "transcribe",
            components.transcribe(
                clips=cut["clips"], transcribe_params=transcribe_params, text_params=text_params
            ),
        )
        packed = place(
            "dataset",
            components.dataset(
                clips=cut["clips"],
                transcripts=written["transcripts"],
                dataset_params=dataset_params,
                text_params=text_params,
            ),
        )
        analyzed = place(
            "analyze",
            components.analyze(dataset=packed["dataset"], analyze_params=analyze_params),
        )
        tuned = place(
            "tune",
            components.tune(
                dataset=packed["dataset"],
                analysis=analyzed["analysis"],
                tune_params=tune_params,
                train_params=train_params,
                audio_params=audio_params,
                text_params=text_params,
                tracking_params=tracking_params,
                runs=runs,
            ),
        )
        trained = place(
            "train",
            components.train(
                dataset=packed["dataset"],
                analysis=analyzed["analysis"],
                best_params=tuned["best_params"],
                train_params=train_params,
                audio_params=audio_params,
                text_params=text_params,
                tracking_params=tracking_params,
                runs=runs,
            ),
        )
        evaluated = place(
            "evaluate",
            components.evaluate(
                dataset=packed["dataset"],
                model=trained["model"],
                evaluate_params=evaluate_params,
                transcribe_params=transcribe_params,
                promote_params=promote_params,
                tracking_params=tracking_params,
            ),
        )
        place(
            "promote",
            components.promote(
                evaluation=evaluated["evaluation"],
                model=trained["model"],
                promote_params=promote_params,
                tracking_params=tracking_params,
            ),
        )

    return voice


def for_cluster(params: Params, mlflow_uri: str) -> Params:
    """Point tracking at a server: a database file of this machine means nothing in a container."""
    given = params.tracking.mlflow_uri
    if given is None or not given.startswith("sqlite:"):
        return params
    return params.with_overrides({"tracking": {"mlflow_uri": mlflow_uri}})


def compiled(pipeline: Any) -> str:
    """The package as text: the same bytes for the same pipeline and SDK."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, package_path=str(package))
        return package.read_text(encoding="utf-8")


def without_sdk(package: str) -> list[str]:
    """The package's lines but the one that names the SDK's version."""
    return [line for line in package.splitlines() if not line.startswith("sdkVersion:")]


def parser() -> argparse.ArgumentParser:
    """The command line of this file."""
    top = argparse.ArgumentParser(prog="python pipeline.py", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("compile", help="write the pipeline package")
    one.add_argument("-o", "--output", type=Path, default=Path("pipeline.yaml"))
    one.add_argument("--check", action="store_true", help="only compare: exit 1 if it would change")
    one.add_argument("--params", type=Path, help="parameter file (default: params.yaml, if there)")
    one.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    one.add_argument("--profile", choices=sorted(PROFILES), default="cpu")
    one.add_argument(
        "--mlflow-uri", default=CLUSTER_MLFLOW_URI, help="in place of a local database"
    )
    one.add_argument(
        "--cache", action="store_true", help="let Kubeflow reuse results of equal tasks"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, or check a compiled package."""
    given = parser().parse_args(arguments)
    try:
        params = for_cluster(load_params(given.params, overrides=given.set), given.mlflow_uri)
    except PipelineError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    package = compiled(build(params, PROFILES[given.profile], cache=given.cache))
    if not given.check:
        write_text(given.output, package)
        print(f"wrote {given.output}")
        return 0
    old = given.output.read_text(encoding="utf-8") if given.output.exists() else ""
    if without_sdk(old) == without_sdk(package):
        print(f"{given.output} is up to date")
        return 0
    print(f"error: {given.output} is not what this code compiles to", file=sys.stderr)
    print("  run `python pipeline.py compile`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
