"""``reload`` and ``config``: the file on disk, and the configuration in force."""

from __future__ import annotations

import sys
from typing import Any

import click

from supervisord_async.cli.options import complete_names, timeout_option, verb
from supervisord_async.cli.output import complain, print_json, say
from supervisord_async.cli.progress import waiting
from supervisord_async.cli.results import exit_code, print_results
from supervisord_async.cli.session import Session
from supervisord_async.cli.words import printable
from supervisord_async.client.answers import Reload
from supervisord_async.errors import ConfigError


@verb("reload")
@click.option("--plan", is_flag=True, help="Say what a reload would do, and do nothing.")
@click.option("--no-wait", is_flag=True, help="Return once the file is in force, without waiting for what it touched.")
@timeout_option
def reload(session: Session, plan: bool, no_wait: bool, timeout: float | None) -> int:
    """Put the file on disk in force: only what changed is touched.

    Waits until the changed programs are up or have failed, and exits with 1 if one has failed. An unsound file changes
    nothing: every problem is printed, and the exit code is 2.
    """

    def request() -> Reload:
        with session.client() as client:
            return client.reload(plan=plan, wait=not no_wait, timeout_seconds=timeout)

    try:
        done = request() if plan or no_wait else waiting(request, session.client, (), "settled")
    except ConfigError as error:
        if not session.json:
            raise
        print_json({"problems": [problem.document for problem in error.problems]})
        return 2
    if session.json:
        print_json(done.document)
    else:
        for warning in done.warnings:
            complain(warning, begin="")
        for line in done.lines or ["nothing changes" if plan else "nothing changed"]:
            say(str(line))
        print_results("reload", done.results)
    return exit_code(done.results)


@verb("config")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configuration files; needs no daemon.")
def config(session: Session, name: str | None, schema: bool) -> None:
    """Print the configuration in force, merged, with secrets masked."""
    if schema:
        if name is not None:
            raise click.UsageError("--schema is that of whole files: it takes no NAME")
        _print_schema()
        return
    with session.client() as client:
        document = client.config(name)
    if session.json:
        print_json(document)
    else:
        _print_yaml(document)


def _print_schema() -> None:
    from supervisord_async.config.schema import schema_text

    sys.stdout.write(schema_text())


def _print_yaml(document: dict[str, Any]) -> None:
    # YAML spells control characters out by itself, but characters that reorder a terminal's text only when everything is ASCII
    text = _dumped(document, allow_unicode=True)
    if any(printable(line) != line for line in text.split("\n")):
        text = _dumped(document, allow_unicode=False)
    sys.stdout.write(text)


def _dumped(document: dict[str, Any], *, allow_unicode: bool) -> str:
    import yaml

    fast = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        return str(yaml.dump(document, Dumper=fast, sort_keys=False, width=100, allow_unicode=allow_unicode))
    except UnicodeEncodeError:  # a path has bytes that are not UTF-8, which the slower dumper spells out
        return str(yaml.dump(document, Dumper=yaml.SafeDumper, sort_keys=False, width=100, allow_unicode=allow_unicode))
