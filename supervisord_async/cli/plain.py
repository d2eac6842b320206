"""``asupctl status`` in its plain forms, read without click, which takes as long to load as all the rest.

What is read here means the same to click; whatever is not plain (another verb or option, help, completion, a mistake) is
left to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisord_async.cli.session import Session

_VALUED = {"-c": "file", "--config": "file", "-s": "socket", "--socket": "socket"}


def plain_status(arguments: Sequence[str]) -> tuple[Session, list[str]] | None:
    """The session and the selectors of a plain ``status``; None for anything else."""
    session, words = Session(), list[str]()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--json":
            session.json = True
        elif name := _VALUED.get(argument):
            value = next(rest, None)
            if value is None or value.startswith("-"):
                return None
            setattr(session, name, value)
        elif argument.startswith("-"):
            return None
        else:
            words.append(argument)
    return (session, words[1:]) if words[:1] == ["status"] else None
