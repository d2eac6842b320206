"""Which values must not be shown, and the effective configuration with those masked. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from supervisord_async.config.effective import as_data
from supervisord_async.config.model import Configuration, Program

MASK = "********"
#: Where a message cuts a long value off.
CUT = "…"
#: A shorter value is masked under its own key, but not searched for in other text: it would be found everywhere.
SEARCHED_LENGTH = 4

_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$", re.IGNORECASE)
_OPTION = re.compile(r"^(--?)([A-Za-z][A-Za-z0-9_-]*)(=(.*))?$", re.DOTALL)
_ASSIGNMENT = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_]*)=(\S+)")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)")


def is_secret_name(name: str, extra: Collection[str] = ()) -> bool:
    """Whether a variable is secret: by its name (*PASSWORD*, *SECRET*, *TOKEN*, *_KEY), or because it is in ``extra``."""
    return name in extra or bool(_SECRET_NAME.search(name))


def secret_values(program: Program) -> tuple[str, ...]:
    """The secret values of a program's environment that can be searched for in text, longest first."""
    return secrets_among(program.environment, program.secrets)


def secrets_among(variables: Mapping[str, str], extra: Collection[str] = ()) -> tuple[str, ...]:
    """The values of the secret ones of ``variables`` (see :func:`is_secret_name`) that can be searched for in text, longest first."""
    values = {value for name, value in variables.items() if len(value) >= SEARCHED_LENGTH and is_secret_name(name, extra)}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def without_values(text: str, values: Iterable[str]) -> str:
    """``text`` with each of ``values`` masked, also as messages show them: with line breaks escaped, and cut off by an ellipsis."""
    for value in values:
        for shown in (value,) if value.isprintable() else (value.encode("unicode_escape").decode("ascii"), value):
            text = text.replace(shown, MASK)
            for length in range(len(shown) - 1, SEARCHED_LENGTH - 1, -1) if CUT in text else ():
                text = text.replace(shown[:length] + CUT, MASK + CUT)
    return text


def masked_text(text: str, values: Iterable[str]) -> str:
    """``text`` with these masked: each of ``values``, what follows a secret's name and ``=``, and passwords in URLs."""
    text = without_values(text, values)
    text = _ASSIGNMENT.sub(lambda match: f"{match[1]}={MASK}" if is_secret_name(match[1]) else match[0], text)
    return _URL_PASSWORD.sub(lambda match: f"{match[1]}:{MASK}", text)


def masked_words(words: Iterable[str], values: Iterable[str]) -> list[str]:
    """An argument vector with secrets masked, including the value of an option whose name looks like a secret's."""
    known = tuple(values)
    shown = []
    hide_next = False
    for word in words:
        option = _OPTION.match(word)
        secret = option is not None and is_secret_name(option[2].replace("-", "_"))
        if hide_next and not option:
            shown.append(MASK)
        elif option and secret and option[3]:
            shown.append(f"{option[1]}{option[2]}={MASK}")
        else:
            shown.append(masked_text(word, known))
        hide_next = secret and option is not None and not option[3]
    return shown


def masked(configuration: Configuration) -> dict[str, Any]:
    """The effective configuration in the file's own words, with secrets masked wherever they occur."""
    data = as_data(configuration)
    everywhere: set[str] = set()
    for name, program in configuration.programs.items():
        values = secret_values(program)
        everywhere.update(values)
        data["programs"][name] = _masked_program(data["programs"][name], program, values)
    data["daemon"] = _masked_value(data["daemon"], tuple(sorted(everywhere, key=len, reverse=True)))
    return data


def _masked_program(data: dict[str, Any], program: Program, values: tuple[str, ...]) -> dict[str, Any]:
    result = {key: value if key in ("name", "secrets") else _masked_value(value, values) for key, value in data.items()}
    result["environment"] = {
        name: MASK if is_secret_name(name, program.secrets) else masked_text(value, values) for name, value in program.environment.items()
    }
    return result


def _masked_value(value: Any, values: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _masked_value(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return (
            masked_words(value, values)
            if value and all(isinstance(item, str) for item in value)
            else [_masked_value(v, values) for v in value]
        )
    return masked_text(value, values) if isinstance(value, str) else value
