"""Recognizes files of other supervisors, so that the user hears that instead of what is wrong with them as YAML."""

from __future__ import annotations

import re

_OURS = r"(?m)^(?:version|programs|include|daemon|defaults)[ \t]*:"
_BLANK = r"(?:[ \t]*(?:#.*)?\r?\n)*"  #: comments and empty lines
#: A pattern, whose first group is the place to report, and the message.
_KINDS = (
    (
        # The first line is only a section's name, and settings follow.
        rf"\A{_BLANK}(\[[\w :.-]+\])[ \t]*(?:[#;].*)?\r?\n(?:.*\n)*?[ \t]*[\w.-]+[ \t]*=",
        "this looks like an INI file, as supervisord, circus and systemd have them; here a file is YAML",
    ),
    (
        r"(?m)^(module\.exports\b|export default\b)",
        "this looks like JavaScript, such as pm2's ecosystem.config.js; here a file is YAML, and each of its apps one of 'programs'",
    ),
    (
        r"(?m)^(kind:[ \t]*[A-Z]\w+[ \t]*\r?$)",
        "this looks like a Kubernetes manifest; here each container is one of 'programs', with its command, on the machine itself",
    ),
    (
        rf"\A{_BLANK}()(?:[\w-]+:[ \t]+[^\s{{\[&*!|>\d'\"].*(?:\n|\Z){_BLANK})+\Z",
        "this looks like a Procfile; here each of its lines is one of 'programs': {web: {command: …, shell: true}}",
    ),
)


def other_file(text: str) -> tuple[int, int, str] | None:
    """Line, column (both from 1) and message if ``text`` is another supervisor's file; None if it is one of ours or unknown."""
    if re.search(_OURS, text):
        return None
    for pattern, words in _KINDS:
        if found := re.search(pattern, text):
            before = text[: found.start(1)]
            return before.count("\n") + 1, len(before) - before.rfind("\n"), words
    return None
