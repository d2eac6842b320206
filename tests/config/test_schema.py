"""What is published about the format is what is loaded."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from supervisord_async.config import schema

ROOT = Path(__file__).parents[2]


def complaints(text):
    return [error.message for error in Draft202012Validator(schema.schema()).iter_errors(yaml.safe_load(text))]


def test_schema_and_reference_are_up_to_date():
    assert schema.main(["--check", str(ROOT)]) == 0, "run: python -m supervisord_async.config.schema"


def test_the_generator_writes_and_then_finds_nothing_to_do(tmp_path, capsys):
    assert schema.main(["--check", str(tmp_path)]) == 1
    assert "not up to date: config/programs.schema.json, docs/reference.md" in capsys.readouterr().err
    assert schema.main([str(tmp_path)]) == 0
    assert schema.main(["--check", str(tmp_path)]) == 0
    assert schema.schema_text() == schema.schema_text()


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema.schema())
    assert "x-expected" not in schema.schema_text()


def test_the_schema_describes_its_keys():
    for name, definition in schema.schema()["$defs"].items():
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        "programs: {web: {command: [sleep, 60], restart: always, heartbeat: 5s, watch: [src], umask: 022, environment: {A: 1, B: true}}}",
        "programs: [{name: web, command: x}]",
        "x-any: [thing]\nprograms: {x-base: {}, web: {command: x, x-note: 1, restart: {x-y: 2}}}",
    ],
)
def test_sound_files_fit_the_published_schema(text, project):
    assert complaints(text) == []
    assert project.problems(text.replace("[src]", "[.]")) == []


@pytest.mark.parametrize(
    "text", ["programs: {web: {command: x, restrat: always}}", "programs: {web: {replicas: 0}}", "version: 2", "daemon: []"]
)
def test_unsound_files_do_not_fit_the_published_schema(text):
    assert complaints(text)
