"""What the commands share: the type of a head's name, and errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from bigbird_port.families.registry import find_head
from bigbird_port.installed import EXTRAS, advice

FAILED = 1


class HeadName(click.ParamType):
    """A head's name or alias; with ``allow_all`` also "all"."""

    name = "head"

    def __init__(self, allow_all: bool = False) -> None:
        self.allow_all = allow_all

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the head's name, or "all"."""
        if self.allow_all and value == "all":
            return "all"
        try:
            return find_head(value).name
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What help shows."""
        return "HEAD"


class SourcePath(click.Path):
    """A path of a source of weights; an address in its place is refused as it was typed, before Path folds it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        from bigbird_port.formats.detection.typed import check_address

        if value == "":
            raise BadInput("the path of a source is empty, expected a file or folder: is a shell variable unset?")
        if isinstance(value, str) and not Path(value).exists():
            try:
                check_address(value)
            except ValueError as error:
                raise BadInput(str(error)) from None
        return super().convert(value, param, ctx)


def _follow_links(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    from bigbird_port.formats.links import following_links

    if value:
        ctx.with_resource(following_links())


# Of commands that read a source: for as long as the command runs.
follow_links = click.option(
    "--follow-links",
    is_flag=True,
    expose_value=False,
    callback=_follow_links,
    help="Follow links that lead out of the source's folder, if you trust it.",
)


class BadInput(click.ClickException):
    """Input that cannot be used: a message, no traceback."""

    exit_code = 2


def _lacking(error: ModuleNotFoundError) -> Exception:
    """What to raise for a module that is not there: what to install where it belongs to an extra."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return error
    return BadInput(str(error) if "bigbird-port[" in str(error) else f"this needs {advice([name])}")


def no_traceback(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that bad input raises into a message and exit code 2."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # a reader that has seen enough, such as head: click ends quietly
        except (ValueError, OSError) as error:
            raise BadInput(str(error)) from None
        except ModuleNotFoundError as error:
            raise _lacking(error) from error

    return guarded
