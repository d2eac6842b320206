"""Masks a program's secrets in inputs and messages: an error may quote a command, a hook's output, or an address."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from supervisord_async.config.model import Program
from supervisord_async.config.secrets import masked_text, secret_values
from supervisord_async.core.inputs import Input

InputT = TypeVar("InputT", bound=Input)


def without_secrets(input_: InputT, program: Program) -> InputT:
    """``input_`` with the secrets of ``program`` masked in its ``detail``, which snapshots, records, logs and answers repeat."""
    detail = getattr(input_, "detail", "")
    if not detail:
        return input_
    masked = words_without_secrets(detail, program)
    return input_ if masked == detail else msgspec.structs.replace(input_, detail=masked)


def words_without_secrets(words: str, program: Program) -> str:
    """``words`` with the secrets of ``program`` masked."""
    return masked_text(words, secret_values(program))
