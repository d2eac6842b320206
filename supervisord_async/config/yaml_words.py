"""The YAML parser's complaints in words that help."""

from __future__ import annotations

from typing import Any

import yaml

_NO_TAB = "a tab cannot indent; use spaces"
_INDENTATION = "is the indentation the same as on the lines around it?"
#: A part of the parser's message, and our message instead.
_WORDS = (
    ("mapping values are not allowed", "a ':' is not allowed here; check the indentation, or put a value that holds ': ' into quotes"),
    ("block sequence entries are not allowed", "a list cannot begin here; put its '-' on a line of its own"),
    ("could not find expected ':'", "expected 'key: value', found a line without ':'"),
    ("expected ',' or ']'", "expected ',' or ']': the list that began with '[' is not closed"),
    ("expected ',' or '}'", "expected ',' or '}': the mapping that began with '{' is not closed"),
    ("did not find expected '-' indicator", f"expected a further '-' of the list; {_INDENTATION}"),
    ("expected <block end>", f"expected a further key or '-'; {_INDENTATION}"),
    ("did not find expected key", f"expected a key; {_INDENTATION}"),
    ("expected <document start>", "the document ends before this; is there a bracket too many?"),
    ("but found another document", "expected a single document, found another one after '---'"),
    ("expected node content", "a value is missing here; is a bracket before it not closed?"),
    ("expected the node content", "a value is missing here; is a bracket before it not closed?"),
    ("unexpected end of stream", "a quote is opened and never closed"),
    ("found a tab character that violates indentation", _NO_TAB),
    ("unknown escape character", "unknown escape after '\\'; in single quotes a backslash stands for itself"),
)


def human_words(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Line, column (both from 1) and a sentence for what the parser found."""
    if not isinstance(error, yaml.MarkedYAMLError):
        line, column = _place(text, getattr(error, "position", 0))
        return line, column, "a control character is not allowed here; in double quotes write it as an escape such as \\x01"
    # for text that was taken for an alias, an anchor or a block: where that begins
    mark = error.context_mark if _begins_with_a_sign(error) else error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return line, column, _words(error, text, line, column)


def _words(error: yaml.MarkedYAMLError, text: str, line: int, column: int) -> str:
    problem, context = error.problem or "", error.context or ""
    if "cannot start any token" in problem or _begins_with_a_sign(error):
        return _bad_start(text, line, column)
    if "undefined alias" in problem:
        return "the alias refers to an anchor that is not defined before it; put text that begins with '*' into quotes"
    if "duplicate anchor" in context:
        mark = error.context_mark
        return "this anchor's name was used before" + (f" on line {mark.line + 1}" if mark else "")
    for part, words in _WORDS:
        if part in problem:
            rows = text.splitlines()[max(0, line - 2) : line]
            flow = part.startswith("expected ','")
            began = f" (line {error.context_mark.line + 1})" if flow and error.context_mark else ""
            return words + began + ("; between brackets, '${…}' needs quotes" if flow and any("${" in row for row in rows) else "")
    return f"this is not YAML: {problem or context}"


def _begins_with_a_sign(error: yaml.MarkedYAMLError) -> bool:
    """True for ``*/5 * * * *``, ``& x`` or ``>x``: text whose first character has another meaning in YAML."""
    return (
        error.context_mark is not None
        and (error.context or "") in ("while scanning an alias", "while scanning an anchor", "while scanning a block scalar")
        and ("expected alphabetic or numeric character" in (error.problem or "") or "line break" in (error.problem or ""))
    )


def _bad_start(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    row = lines[line - 1] if line <= len(lines) else ""
    character = row[column - 1 : column]
    if character == "\t" or (not row[: column - 1].strip(" ") and "\t" in row[:column]):
        return _NO_TAB
    return f"a value cannot begin with '{character}'; put it into quotes"


def _place(text: str, index: int) -> tuple[int, int]:
    before: Any = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")
