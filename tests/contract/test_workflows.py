"""The GitHub workflows: pinned actions, few rights, no text of strangers in a shell."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yaml"))
PINNED = re.compile(r"^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def steps(workflow: Any) -> Iterator[Any]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_the_three_workflows_are_there() -> None:
    assert [file.stem for file in FILES] == ["checks", "images", "pipeline"]


def test_every_action_is_pinned_with_its_version_beside_it(file: Path) -> None:
    used = re.findall(r"uses: (.+)", file.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not PINNED.match(action)] == []


def test_an_action_has_one_pin_everywhere() -> None:
    """Two pins of one action mean that an update was forgotten."""
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    used = set(re.findall(r"uses: (.+)", text))
    assert len({action.partition("@")[0] for action in used}) == len(used)


def test_the_token_can_only_read_unless_a_job_says_more(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_expressions_reach_a_shell_only_as_variables(file: Path) -> None:
    """An expression inside `run` is pasted into the script: whoever sets it runs commands."""
    for step in steps(yaml.safe_load(file.read_text(encoding="utf-8"))):
        assert "${{" not in step.get("run", "")


def test_commands_of_kamerton_use_options_that_exist(file: Path) -> None:
    import typer

    from kamerton.cli.pipeline import pipeline_app

    commands = typer.main.get_group(pipeline_app).commands
    for step in steps(yaml.safe_load(file.read_text(encoding="utf-8"))):
        for line in step.get("run", "").splitlines():
            words = shlex.split(line)
            if words[:2] != ["kamerton", "pipeline"]:
                continue
            known = {name for parameter in commands[words[2]].params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known
