"""``completion``: the script with which a shell completes asupctl's verbs, options and live names."""

from __future__ import annotations

import click

from supervisord_async.cli.options import verb
from supervisord_async.cli.session import Session

#: Keeps bash from splitting words at colons, which names of replicas and groups contain.
_WHOLE_NAMES = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}"


@verb("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(_: Session, shell: str) -> None:
    """Print a shell's completion script.

    \b
    bash: eval "$(asupctl completion bash)"            in ~/.bashrc
    zsh:  eval "$(asupctl completion zsh)"             in ~/.zshrc, after compinit
    fish: asupctl completion fish > ~/.config/fish/completions/asupctl.fish
    """  # noqa: D301  click does not rewrap lines after a backspace character
    from click.shell_completion import get_completion_class

    from supervisord_async.cli.asupctl import COMPLETION_VARIABLE
    from supervisord_async.cli.group import cli

    script = get_completion_class(shell)
    if script is None:  # click knows these three
        raise click.UsageError(f"no completion for {shell}")
    if shell == "bash":
        click.echo(_WHOLE_NAMES)
    click.echo(script(cli, {}, "asupctl", COMPLETION_VARIABLE).source())
