"""What is installed: the versions of the stack, and what to install where a part of it is lacking.

Nothing here imports a framework. The base install converts and verifies; each framework is an extra.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence

import bigbird_port

# What is imported -> the extra of bigbird-port that brings it.
EXTRAS = {
    "torch": "torch",
    "jax": "flax",
    "jaxlib": "flax",
    "flax": "flax",
    "optax": "flax",
    "orbax": "flax",
    "transformers": "transformers",
}
BOTH = ("torch", "jax", "flax", "optax")
STACK = (
    *("numpy", "torch", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml_dtypes"),
    *("safetensors", "sentencepiece", "tokenizers", "transformers"),
)


def version_of(package: str) -> str | None:
    """Return a package's version, from its metadata; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def stack() -> str:
    """Return the versions of bigbird-port, Python and all that the product computes with, one a line."""
    found = {"bigbird-port": bigbird_port.__version__, "python": platform.python_version()}
    found |= {name: version_of(name) or "not installed" for name in STACK}
    return "\n".join(f"{name} {version}" for name, version in found.items())


def need(what: str, *modules: str) -> None:
    """Raise ModuleNotFoundError, with the command that installs them, where modules are not installed.

    what: begins the message; it is what needs them, in the user's terms.
    """
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if lacking:
        raise ModuleNotFoundError(f"{what} needs {advice(lacking)}", name=lacking[0])


def advice(lacking: Sequence[str]) -> str:
    """Return the names of modules that are not installed, and the command that installs them."""
    *most, last = lacking
    names = f"{', '.join(most)} and {last}, which are" if most else f"{last}, which is"
    extras = ",".join(dict.fromkeys(EXTRAS[name] for name in lacking))
    return f"{names} not installed: pip install 'bigbird-port[{extras}]'"
