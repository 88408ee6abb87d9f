"""`maceproc completion`: what a shell needs to complete verbs, options and files."""

from __future__ import annotations

import click

NAME, VARIABLE = "maceproc", "_MACEPROC_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print the code that completes maceproc's verbs, options and files in a shell.

    \b
    Once, for this shell:
      eval "$(maceproc completion bash)"
    For good:
      maceproc completion bash > ~/.local/share/bash-completion/completions/maceproc
      maceproc completion zsh > "${fpath[1]}/_maceproc"
      maceproc completion fish > ~/.config/fish/completions/maceproc.fish
    """
    from click.shell_completion import get_completion_class

    code = get_completion_class(shell)
    assert code is not None  # click has these three
    click.echo(code(context.find_root().command, {}, NAME, VARIABLE).source())
