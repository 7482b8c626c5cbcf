"""What a command does when it is told to stop: it cleans up, and ends with the code that shells expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_TOLD = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


class Terminated(BaseException):
    """SIGTERM, raised where the program is, as KeyboardInterrupt is for SIGINT."""


class StoppableGroup(click.Group):
    """A group whose commands end with 130 on SIGINT and 143 on SIGTERM, after what they began was cleaned up."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        came: list[signal.Signals] = []
        try:
            with stoppable(came):
                return super().invoke(ctx)
        except BaseException as error:
            # A signal can arrive inside a lock of Python's own, whose exit then raises an error of its own in place
            # of the signal's. So the signal that came decides, and not the exception.
            if not came and not isinstance(error, KeyboardInterrupt):
                raise
            first = came[0] if came else signal.SIGINT
            click.echo(f"{_TOLD[first]}: what was begun was cleaned up.", err=True)
            ctx.exit(128 + first)


@contextmanager
def stoppable(came: list[signal.Signals]) -> Iterator[None]:
    """Note in ``came`` each SIGINT and SIGTERM that nobody else handles, and raise KeyboardInterrupt or Terminated."""

    def interrupt(number: int, frame: Any) -> None:
        came.append(signal.SIGINT)
        raise KeyboardInterrupt

    def terminate(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: a second one would stop the cleaning up
        came.append(signal.SIGTERM)
        raise Terminated

    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    mine = threading.current_thread() is threading.main_thread()
    taken = [number for number, handler in usual.items() if mine and signal.getsignal(number) == handler]
    for number in taken:
        signal.signal(number, ours[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, usual[number])
