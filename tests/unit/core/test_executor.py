"""The executor contract: where outputs are, and what Kubeflow is told about them."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core.errors import PipelineError, UsageError
from kamerton.core.executor import local_path, parse_executor_input


def executor_input(folder: Path, *names: str) -> str:
    """What Kubeflow hands a task with one Dataset per name and a Metrics artifact."""
    artifacts = {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "type": {"schemaTitle": title, "schemaVersion": "0.0.1"},
                    "uri": str(folder / "task" / name),
                    "metadata": {},
                }
            ]
        }
        for name, title in [*((n, "system.Dataset") for n in names), ("metrics", "system.Metrics")]
    }
    outputs = {"artifacts": artifacts, "outputFile": str(folder / "task/executor_output.json")}
    return json.dumps({"inputs": {"parameterValues": {"a": 1.0}}, "outputs": outputs})


def test_prepare_makes_the_parents_but_not_the_outputs(tmp_path: Path) -> None:
    executor = parse_executor_input(executor_input(tmp_path, "clips"))
    executor.prepare()
    assert (tmp_path / "task").is_dir()
    assert list((tmp_path / "task").iterdir()) == []


def test_finish_reports_every_artifact_with_its_metadata(tmp_path: Path) -> None:
    executor = parse_executor_input(executor_input(tmp_path, "clips", "report"))
    executor.prepare()
    (tmp_path / "task/clips").mkdir()
    (tmp_path / "task/report").write_text("<html>")
    executor.finish({"clips": 12, "hours": 0.5}, metadata={"stage": "segment"})

    written = json.loads((tmp_path / "task/executor_output.json").read_text())["artifacts"]
    assert set(written) == {"clips", "report", "metrics"}
    (metrics,) = written["metrics"]["artifacts"]
    assert metrics["metadata"] == {"clips": 12.0, "hours": 0.5}
    assert metrics["uri"] == str(tmp_path / "task/metrics")
    (clips,) = written["clips"]["artifacts"]
    assert clips == {
        "name": "clips",
        "uri": str(tmp_path / "task/clips"),
        "metadata": {"stage": "segment"},
    }
    assert json.loads((tmp_path / "task/metrics").read_text()) == {"clips": 12.0, "hours": 0.5}


def test_a_missing_output_is_an_error_and_nothing_is_reported(tmp_path: Path) -> None:
    executor = parse_executor_input(executor_input(tmp_path, "clips", "report"))
    executor.prepare()
    (tmp_path / "task/clips").mkdir()
    with pytest.raises(PipelineError, match="'report'"):
        executor.finish({})
    assert not (tmp_path / "task/executor_output.json").exists()
    assert not (tmp_path / "task/metrics").exists()


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(allow_nan=True), max_size=6))
def test_only_finite_numbers_reach_the_table(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float]
) -> None:
    folder = tmp_path_factory.mktemp("executor")
    executor = parse_executor_input(executor_input(folder))
    executor.prepare()
    executor.finish(metrics)
    text = (folder / "task/executor_output.json").read_text()
    (table,) = json.loads(text, parse_constant=pytest.fail)["artifacts"]["metrics"]["artifacts"]
    assert table["metadata"] == {k: v for k, v in metrics.items() if math.isfinite(v)}
    file = json.loads((folder / "task/metrics").read_text(), parse_constant=pytest.fail)
    assert set(file) == set(metrics)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/a/b", "/s3/bucket/a/b"),
        ("minio://mlpipeline/v2/artifacts/x", "/minio/mlpipeline/v2/artifacts/x"),
        ("gs://bucket/x", "/gcs/bucket/x"),
        ("/tmp/run/x", "/tmp/run/x"),
    ],
)
def test_uris_become_the_launchers_mounts(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


def test_the_mounts_are_those_of_kfp() -> None:
    """Kubeflow's own SDK maps URIs in the same way."""
    dsl = pytest.importorskip("kfp.dsl", reason="kfp is not installed")
    for uri in ("s3://b/k", "minio://b/k", "gs://b/k", "/plain/path"):
        assert str(local_path(uri)) == dsl.Artifact(uri=uri).path


def test_a_store_that_is_not_mounted_is_named() -> None:
    with pytest.raises(UsageError, match="oci://registry"):
        local_path("oci://registry/x")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"outputs": {}}', '{"outputs": {"artifacts": {"a": {}}}}'],
)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="--executor-input"):
        parse_executor_input(text)
