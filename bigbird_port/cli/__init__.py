"""The command line: thin commands over public functions; the only room that sees everything."""

from bigbird_port.cli.group import main

__all__ = ["main"]
