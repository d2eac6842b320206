"""``doctor``: checks whether everything is in place for the daemon and its programs, and says what to do if not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from supervisord_async.cli.locate import DEFAULT_FILE
from supervisord_async.cli.locate_run_dir import find_run_dir, run_dir_option
from supervisord_async.cli.options import verb
from supervisord_async.cli.output import colours, print_json, say, styled, wrapped
from supervisord_async.cli.session import Session
from supervisord_async.cli.words import printable
from supervisord_async.daemon_registry import DEFAULT_RUN_DIR
from supervisord_async.wire import ENV_SOCKET
from supervisord_async.words import counted

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@verb("doctor")
@run_dir_option
@click.option("-q", "--quiet", is_flag=True, help="Only what is wrong.")
def doctor(session: Session, run_dir: str | None, quiet: bool) -> int:
    """Check the set-up, and say what to do about each fault. Exits with 1 if there is an error.

    Works with or without a daemon, and changes nothing.
    """
    from supervisord_async.cli.diagnosis import examine

    named = run_dir or session.file or session.socket or os.environ.get(ENV_SOCKET)
    file = session.file or (DEFAULT_FILE if not named and Path(DEFAULT_FILE).exists() else None)
    findings = examine(find_run_dir(session, run_dir) if named or file else os.path.abspath(DEFAULT_RUN_DIR), file)
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if session.json:
        print_json(
            {
                "sound": not errors,
                "findings": [
                    {"level": each.level, "check": each.check, "message": each.message, "advice": each.advice or None} for each in findings
                ],
            }
        )
        return 1 if errors else 0
    on = colours(sys.stdout)
    for each in findings:
        if not (quiet and each.level == "ok"):
            message = wrapped(printable(each.message), begin=22, indent=22)
            click.echo(f"{styled(f'{each.level:<8}', STYLES[each.level], on=on)}{each.check:<14}{message}")
            if each.advice:
                click.echo(f"{'':22}→ {wrapped(printable(each.advice), begin=24, indent=24)}")
    if not quiet or errors or warnings:
        say(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return 1 if errors else 0
