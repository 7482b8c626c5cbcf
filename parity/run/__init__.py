"""A run: the walk through the layers, what is compared there, and what was found.

``from parity.run import Options, run_parity`` is how programs run it; both are imported on use, because the witnesses
import modules of this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.run.conditions import Options
    from parity.run.run import run_parity

__all__ = ["Options", "run_parity"]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from parity.run import run

    return getattr(run, name)
