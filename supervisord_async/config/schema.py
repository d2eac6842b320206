"""The published descriptions of the format, generated from ``shape``: the JSON Schema and the reference of keys.

``python -m supervisord_async.config.schema [--check] [ROOT]`` writes ``config/programs.schema.json`` and
``docs/reference.md`` under ROOT (default: here), or checks that they are up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from supervisord_async.config import shape, units
from supervisord_async.config.explain import expected_words
from supervisord_async.config.reference import INTRODUCTION

SCHEMA_FILE = Path("config/programs.schema.json")
#: Short words for narrow columns; the introduction explains them.
_SHORT = {units.DURATION_EXPECTED: "duration", units.SIZE_EXPECTED: "size", units.SIGNAL_EXPECTED: "signal"}
REFERENCE_FILE = Path("docs/reference.md")


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file."""
    full = msgspec.json.schema(shape.File)
    definitions = full["$defs"]
    top = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "programs.yaml of supervisord_async",
        "$ref": full["$ref"],
        "$defs": {name: definitions[name] for name in _used(definitions, "File")},
    }
    published: dict[str, Any] = _published(top)
    return published


def _used(definitions: dict[str, Any], name: str) -> list[str]:
    """``name`` and every definition that it refers to, directly or through others."""
    found = [name]
    for known in found:
        found += [other for other in definitions if other not in found and f'"#/$defs/{other}"' in json.dumps(definitions[known])]
    return found


def _published(part: Any) -> Any:
    """``part`` without our private ``x-expected``, and with ``x-`` keys allowed."""
    if isinstance(part, list):
        return [_published(item) for item in part]
    if not isinstance(part, dict):
        return part
    result = {key: _published(value) for key, value in part.items() if key != "x-expected"}
    if result.get("additionalProperties") is False:
        result["patternProperties"] = {"^x-": {}}
    return result


def schema_text() -> str:
    """The JSON Schema as text, always the same."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """The reference of keys in Markdown."""
    definitions = msgspec.json.schema(shape.File)["$defs"]
    lines = [INTRODUCTION.rstrip(), ""]
    for title, name, prefix in (("The file", "File", ""), ("daemon", "Daemon", "daemon."), ("programs.NAME and defaults", "Program", "")):
        lines += [f"## {title}", "", "| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        lines += _rows(definitions, name, prefix, deep=name != "File")
        lines.append("")
    return "\n".join(lines)


def _rows(definitions: dict[str, Any], name: str, prefix: str, *, deep: bool) -> Iterator[str]:
    for key, schema_of_key in definitions[name]["properties"].items():
        if name == "Program" and key == "name":
            continue
        meaning = schema_of_key.get("description", "")
        yield _row(f"{prefix}{key}", expected_words(schema_of_key), schema_of_key, meaning, required=key in definitions[name]["required"])
        inner = _group(schema_of_key) if deep else None
        if inner:
            own_names = "additionalProperties" in json.dumps(schema_of_key)
            item = "[]" if _is_list(schema_of_key) else ".NAME" if own_names else ""
            yield from _rows(definitions, inner, f"{prefix}{key}{item}.", deep=True)


def _group(schema_of_key: Any) -> str | None:
    """The definition that a key's value refers to, if any."""
    if isinstance(schema_of_key, dict):
        if "$ref" in schema_of_key:
            return str(schema_of_key["$ref"]).rpartition("/")[2]
        schema_of_key = [value for key, value in schema_of_key.items() if key in ("anyOf", "items", "additionalProperties")]
    if isinstance(schema_of_key, list):
        return next((name for item in schema_of_key if (name := _group(item))), None)
    return None


def _is_list(schema_of_key: dict[str, Any]) -> bool:
    return schema_of_key.get("type") == "array" or any(
        branch.get("type") == "array" and "$ref" in branch.get("items", {}) for branch in schema_of_key.get("anyOf", ())
    )


def _row(key: str, value: str, schema_of_key: dict[str, Any], meaning: str, *, required: bool) -> str:
    default = schema_of_key.get("default")
    if required:
        shown = "required"
    elif isinstance(default, dict) or default in (None, [], {}):
        shown = ""
    else:
        shown = f"`{json.dumps(default)}`" if not isinstance(default, str) or not default else f"`{default}`"
    return f"| `{key}` | {_cell(value)} | {shown} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    for expected, word in _SHORT.items():
        text = text.replace(expected, word)
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """The two files are up to date; or, with ``--check``, are only compared. Returns 1 if that finds a difference, else 0."""
    root = Path(next((argument for argument in arguments if not argument.startswith("-")), "."))
    stale = []
    for file, text in ((SCHEMA_FILE, schema_text()), (REFERENCE_FILE, reference_text())):
        path = root / file
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(file))
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if "--check" in arguments and stale:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run python -m supervisord_async.config.schema\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
