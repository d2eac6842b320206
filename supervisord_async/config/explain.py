"""Every mismatch between data and its shape as a sentence with a position.

``msgspec`` checks the data fast, but reports only the first mismatch. Only when there is one is ``jsonschema`` imported, to
find all of them by the schema of the same shape. The wrong parts are then removed, so that checking can go on with the rest.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from supervisord_async.config.document import Path, found
from supervisord_async.config.other_words import instead, our_value, our_word
from supervisord_async.config.place import Place, Report
from supervisord_async.config.shape import Data, Program, Shape
from supervisord_async.config.units import DURATION_EXPECTED, SIZE_EXPECTED, near_duration, near_size, nearest, suggestion

#: The key that is probably meant where a section is given as a single word.
_MAIN_KEYS: dict[str | int, str] = {"logs": "stdout", "log": "file", "stop": "grace_period", "readiness": "http", "liveness": "http"}

#: What to say of a program's key that stands where only names or sections are expected.
TOO_LITTLE = "'{}' is a program's key: indent it further, below the program's name"


class Finding(NamedTuple):
    """A mismatch at ``path``; ``blame`` is the part that has to be removed for the rest to fit."""

    path: Path
    message: str
    blame: Path
    at_key: bool = False


def fitting(place: Place, data: Data, shape: type[Shape], report: Report) -> Data:
    """``data`` without the parts that do not fit ``shape``, each of which has been reported."""
    if _misfit(data, shape) is None:
        return data
    rest = _with_variables_unquoted(place, data, shape)
    taken: set[Path] = set()
    for _ in range(8):  # removing a wrong part may leave its parent incomplete
        if _misfit(rest, shape) is None:
            return rest
        findings = _findings(rest, shape)
        if not findings:
            break
        for finding in findings:
            if any(path[: len(finding.path)] == finding.path for path in taken):
                continue  # incomplete only because of what was removed, and that is reported
            written = place.document.written((*place.path, *finding.path))
            value = _at(rest, finding.path)
            message = finding.message.replace("\0found\0", found(value, written))
            report.add(place.problem(finding.path, message, at_key=finding.at_key))
        blamed = {finding.blame for finding in findings}
        if () in blamed:
            return {}
        taken |= blamed
        for path in sorted(blamed, key=_from_the_end):
            _remove(rest, path)
    reason = _misfit(rest, shape)
    if reason is None:
        return rest
    report.add(place.problem((), reason))
    return {}


def _misfit(data: Data, shape: type[Shape]) -> str | None:
    """The first mismatch between ``data`` and ``shape`` in msgspec's words; None if it fits."""
    try:
        msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _with_variables_unquoted(place: Place, data: Data, shape: type[Shape]) -> Data:
    """A copy of ``data`` in which each ``"${…}"`` that does not fit as text is read as if it had no quotes.

    YAML needs those quotes between brackets, and JSON everywhere, so they do not mean that text is wanted.
    """
    rest = copy.deepcopy(data)
    for finding in _findings(rest, shape):
        value = _at(rest, finding.path)
        if finding.path and isinstance(value, str):
            _at(rest, finding.path[:-1])[finding.path[-1]] = place.document.unquoted((*place.path, *finding.path), value)
    return rest


def _from_the_end(path: Path) -> tuple[int, int]:
    """Sorts deeper paths, and later items of a list, first."""
    last = path[-1]
    return -len(path), -last if isinstance(last, int) else 0


def _at(data: Any, path: Path) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _remove(data: Any, path: Path) -> None:
    """Whatever is at ``path`` is removed from ``data``."""
    parent = _at(data, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
    elif isinstance(parent, list) and isinstance(path[-1], int) and path[-1] < len(parent):
        del parent[path[-1]]


@cache
def _validator(shape: type[Shape]) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(msgspec.json.schema(shape))


def _findings(data: Data, shape: type[Shape]) -> list[Finding]:
    return [finding for error in _validator(shape).iter_errors(data) for finding in _explain(error)]


def _explain(error: Any) -> Iterator[Finding]:
    """One error of the validator as findings."""
    path: Path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known, title = error.schema.get("properties", {}), error.schema.get("title", "")
        for key, value in error.instance.items():
            if key not in known:
                near = _near(key, known, title) or _misplaced(key, value, title)
                yield Finding((*path, key), f"unknown key{near}", (*path, key), at_key=True)
    elif error.validator == "required":
        for key in error.schema["required"]:
            if key not in error.instance:
                meaning = error.schema["properties"].get(key, {}).get("description", "")
                yield Finding(path, f"'{key}' is missing: {meaning}".rstrip(": ."), path, at_key=True)
    elif error.validator == "anyOf" and isinstance(error.instance, dict | list):
        branch = _fitting_branch(error)
        if branch:
            for inner in branch:
                yield from _explain(inner)
        else:
            yield _mismatch(error, path)
    else:
        yield _mismatch(error, path)


def means_command(key: str) -> bool:
    """Whether a program's unknown ``key`` probably means ``command``."""
    known = Program.__struct_fields__
    return key not in known and (our_word(key, "Program") or nearest(key, known)) == "command"


def means_programs(key: str) -> bool:
    """Whether a file's unknown ``key`` is another supervisor's word for ``programs``."""
    return our_word(key, "File") == "programs"


def _near(key: str, known: Iterable[str], title: str) -> str:
    """The advice after ``unknown key``: our word for another supervisor's key, what to do where we have none, or the nearest key."""
    if ours := our_word(key, title):
        return f"; here it is called '{ours}'"
    without = instead(key, title)
    return f"; {without}" if without else suggestion(key, known)


def _misplaced(key: str, value: Any, title: str) -> str:
    """Where a file's unknown ``key`` belongs, if it is a program or a program's key; else nothing."""
    if title == "File" and isinstance(value, dict) and "command" in value:
        return "; a program belongs below 'programs'"
    return f"; {TOO_LITTLE.format(key)}" if title == "File" and key in Program.__struct_fields__ else ""


def _fitting_branch(error: Any) -> list[Any]:
    """The errors of the alternative that a collection was meant as; empty if it resembles none."""
    branches: dict[int, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    for inner_errors in branches.values():
        if not any(inner.validator in ("type", "enum", "const") and not inner.relative_path for inner in inner_errors):
            if all(inner.validator == "anyOf" and not inner.relative_path for inner in inner_errors):
                inside = [found for inner in inner_errors for found in _fitting_branch(inner)]
                if inside:
                    return inside
                continue
            return inner_errors
    return []


def _mismatch(error: Any, path: Path) -> Finding:
    expected = expected_words(error.schema)
    words = [word for word in _words(error.schema) if word != error.instance]  # for "1" do not ask "did you mean '1'?"
    near = _near_value(error.instance, expected, words) or _near_shape(error.instance, expected, path)
    return Finding(path, f"expected {expected}, found \0found\0{near}", path)


def _near_shape(value: Any, expected: str, path: Path) -> str:
    """``did you mean`` with the same value in the expected shape, for the usual slips; else nothing."""
    if expected.startswith("a list") and isinstance(value, str) and "numbers" not in expected:
        return f"; did you mean [{value}]?"
    if expected.startswith("a list of paths") and value is True:
        return "; did you mean ['.']?"
    if expected == "a mapping of names to values" and isinstance(value, list):
        return "; did you mean {NAME: value, …}?"  # does not repeat what was written: it may be secret
    if path[:1] == ("logs",) and len(path) == 2 and value is False:
        return "; did you mean none?"
    if path[:1] == ("environment",) and value is None:
        return '; did you mean ""?'
    main = _MAIN_KEYS.get(path[-1]) if path and expected == "a mapping" else None
    if main is None or not isinstance(value, str | bool):
        return ""
    if path[-1] == "stop" and isinstance(value, str) and value.isalpha():
        main = "signal"
    return f"; did you mean {{{main}: {'none' if value is False else value}}}?"


def _near_value(value: Any, expected: str, words: list[str]) -> str:
    """``did you mean`` with our value for another supervisor's, a size with its B, or the nearest of ``words``; else nothing."""
    ours = our_value(value)
    if ours in words:
        return f"; did you mean '{ours}'?"
    if not isinstance(value, str):
        return ""
    if plain := _plain(value, expected):
        return f"; did you mean {plain}{', without quotes' if plain == value else ''}?"
    near = near_size(value) if expected == SIZE_EXPECTED else near_duration(value) if expected.startswith(DURATION_EXPECTED) else None
    return f"; did you mean '{near}'?" if near else suggestion(value, words)


def _plain(value: str, expected: str) -> str | None:
    """The number or boolean that stands between quotes or has zeros before it; None if ``value`` is nothing like that."""
    if "whole number" in expected and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return str(int(value))
    return value if expected == "true or false" and value in ("true", "false", "yes", "no", "on", "off") else None


def expected_words(schema: dict[str, Any]) -> str:
    """The values that ``schema`` allows, in words."""
    if "x-expected" in schema:
        return str(schema["x-expected"])
    if "anyOf" in schema:
        words = [expected_words(branch) for branch in schema["anyOf"] if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        names = [str(word) for word in schema["enum"]]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    kind = str(schema.get("type", "object"))
    if kind in ("integer", "number") and "minimum" in schema:
        return f"a {'whole ' if kind == 'integer' else ''}number from {schema['minimum']}" + (
            f" to {schema['maximum']}" if "maximum" in schema else ""
        )
    names_of = {
        "string": "text",
        "boolean": "true or false",
        "integer": "a whole number",
        "number": "a number",
        "array": "a list" if "minItems" not in schema else "a list with at least one item",
        "null": "nothing",
    }
    return names_of.get(kind, "a mapping")


def _words(schema: dict[str, Any]) -> list[str]:
    """The fixed words among the alternatives of ``schema``."""
    words = [str(word) for word in schema.get("enum", ())]
    return words + [word for branch in schema.get("anyOf", ()) for word in _words(branch)]
