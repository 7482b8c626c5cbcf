"""Command lines of bigbird-port in pages: found, and parsed without being run."""

from __future__ import annotations

import re
import shlex

import click

from bigbird_port.cli import main


def shown_commands(page: str) -> list[list[str]]:
    """The arguments of every ``bigbird-port ...`` line in a Markdown page's blocks, without comments and pipes."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^(?:\$ )?bigbird-port (.*)$", "\n".join(blocks), flags=re.MULTILINE)
    return [shlex.split(re.split(r";|\|", line)[0], comments=True) for line in lines]


def parse(arguments: list[str]) -> None:
    """Let click parse a command line, through all groups, without running it; placeholders stand for values."""
    command, context = main, click.Context(main, info_name="bigbird-port")
    while isinstance(command, click.Group):
        rest = list(arguments)
        default = getattr(command, "default", None)
        if default and rest[0] not in command.commands:
            rest = [default, *rest]
        name, *arguments = rest
        assert name in command.commands, f"there is no command {name} in {list(command.commands)}"
        command = command.commands[name]
        context = click.Context(command, info_name=name, parent=context)
    values = ["qa" if x == "$HEAD" else "0" if x == "$seed" else x for x in arguments]
    command.parse_args(context, values)
