"""The stacks that make test-versions runs: what is installed in each, and which tests run there."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from tests.conftest import ROOT

# Of all that depends on other packages a part, which takes minutes: files, tokenizers, models, training, transformers.
TESTS = (
    "tests/formats/test_safetensors_format.py",
    "tests/formats/test_orbax_format.py",
    "tests/tokenizers/test_everyday.py",
    "tests/models/test_flax_nnx.py",
    "tests/integrations/test_transformers_classes.py",
    "tests/compatibility",
)


@dataclass(frozen=True)
class Stack:
    """name: of the row. resolution: which releases uv takes. transformers: which of it."""

    name: str
    resolution: str
    transformers: str


STACKS = (
    Stack("oldest", "lowest-direct", "transformers>=4.57,<5"),
    Stack("newest of transformers 4", "highest", "transformers>=4.57,<5"),
    Stack("newest", "highest", "transformers>=5"),
)


def requirements(stack: Stack) -> list[str]:
    """Return what a stack installs: the ranges of pyproject.toml, and what runs the tests."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    names = ("pytest", "hypothesis", "jsonschema", "pyyaml", "accelerate", "peft")
    tools = [line for line in extras["test"] if line.startswith(names) and "xdist" not in line]
    return [*declared["dependencies"], *extras["torch"], *extras["flax"], stack.transformers, *tools, "setuptools>=77"]
