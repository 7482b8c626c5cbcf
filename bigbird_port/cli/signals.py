"""What a command does when it is told to stop: it cleans up, and ends with the code that shells expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM, raised where the program is, as KeyboardInterrupt is for SIGINT."""


class StoppableGroup(click.Group):
    """A group whose commands end with 130 on SIGINT and 143 on SIGTERM, after what they began was cleaned up."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            with terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted: what was begun was cleaned up.", err=True)
            ctx.exit(INTERRUPTED)
        except Terminated:
            click.echo("Terminated: what was begun was cleaned up.", err=True)
            ctx.exit(TERMINATED)


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated on SIGTERM, where nobody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: a second one would stop the cleaning up
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
