"""What a command says and returns when a signal comes, whatever exception the signal ends as."""

import os
import signal

import click
import pytest
from click.testing import CliRunner

from bigbird_port.cli.signals import StoppableGroup, Terminated

TOLD = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


@click.group(cls=StoppableGroup)
def group():
    """A group with one command that is stopped, and one that fails."""


@group.command()
@click.argument("number", type=int)
@click.option("--replaced", is_flag=True)
def stopped(number, replaced):
    """Locks of Python's own raise RuntimeError where a signal's exception came between release and acquire."""
    try:
        os.kill(os.getpid(), number)
    except (KeyboardInterrupt, Terminated):
        if replaced:
            raise RuntimeError("release unlocked lock") from None
        raise


@group.command()
def fails():
    raise RuntimeError("a fault of the program")


@pytest.fixture
def heard():
    """What a shell starts in the background ignores SIGINT, and so would these tests."""
    before = {number: signal.getsignal(number) for number in TOLD}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert before[signal.SIGTERM] == signal.SIG_DFL  # no other test has left a handler behind
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", TOLD)
@pytest.mark.parametrize("replaced", [False, True])
def test_the_signal_decides(number, replaced):
    before = signal.getsignal(number)
    result = CliRunner().invoke(group, ["stopped", f"{int(number)}", *["--replaced"] * replaced])
    assert (result.exit_code, result.output) == (128 + number, f"{TOLD[number]}: what was begun was cleaned up.\n")
    assert signal.getsignal(number) == before


def test_a_fault_without_a_signal_stays_one():
    result = CliRunner().invoke(group, ["fails"])
    assert isinstance(result.exception, RuntimeError)
