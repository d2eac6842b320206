"""``${VAR}`` and ``${VAR:-default}`` in string values; ``$$`` is a dollar, a bare ``$HOME`` stays.

The variables are those of the daemon's own environment; a program's environment files are read later and do not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEXT = re.compile(r"\$[{$]")
_BRACE = re.compile(r"\$\$|\$\{|\}")
#: How deep defaults may nest inside defaults: deeper than anybody needs.
DEEPEST = 16


class ExpansionError(ValueError):
    """A ``${…}`` cannot be expanded; the message says which one and why."""


def expand(text: str, variables: Mapping[str, str], *, _depth: int = 0) -> str:
    """``text`` with every ``${…}`` replaced.

    As in the shell, the default also replaces a variable that is set but empty. Raises ExpansionError for an unset
    variable without default, for a brace that is never closed and for any other form of ``${…}``.
    """
    match = _NEXT.search(text)
    if match is None:
        return text
    if _depth > DEEPEST:
        raise ExpansionError(f"defaults inside defaults go {DEEPEST} deep at most")
    parts, position = [], 0
    while match is not None:
        parts.append(text[position : match.start()])
        if match.group() == "$$":
            parts.append("$")
            position = match.end()
        else:
            end = _closing(text, match.end())
            parts.append(_value(text[match.end() : end], variables, _depth))
            position = end + 1
        match = _NEXT.search(text, position)
    parts.append(text[position:])
    return "".join(parts)


def is_variable(text: str) -> bool:
    """Whether ``text`` is one ``${…}`` and nothing else."""
    if not text.startswith("${"):
        return False
    try:
        return _closing(text, 2) == len(text) - 1
    except ExpansionError:
        return False


def _closing(text: str, start: int) -> int:
    """The index of the brace that closes the ``${`` right before ``start``. Raises ExpansionError if there is none."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        if match.group() == "${":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    raise ExpansionError("'${' is never closed; expected '${NAME}', or '$${' for the characters themselves")


def _value(inner: str, variables: Mapping[str, str], depth: int) -> str:
    """What ``${inner}`` stands for."""
    match = _NAME.match(inner)
    name, rest = (match.group(), inner[match.end() :]) if match else ("", inner)
    if not name or (rest and not rest.startswith(":-")):
        raise ExpansionError(f"'${{{inner[:60]}}}' is not a variable; expected '${{NAME}}' or '${{NAME:-default}}'")
    value = variables.get(name, "")
    if rest:
        return value or expand(rest[2:], variables, _depth=depth + 1)
    if name not in variables:
        raise ExpansionError(
            f"the variable {name} is not set in the daemon's environment; set it there, or give a default by '${{{name}:-…}}' "
            f"(what a program's own environment has, only a shell expands: ${name}, with shell: true)"
        )
    return value
