"""The process of one part: calls its function, and writes each finding as a line as soon as there is one."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    function, chosen, path = sys.argv[1:]
    module, _, name = function.partition(":")
    findings = getattr(importlib.import_module(module), name)(**json.loads(chosen))
    with Path(path).open("w", encoding="utf-8") as file:
        for one in findings:
            file.write(json.dumps(_finite(one)) + "\n")
            file.flush()


def _finite(x: Any) -> Any:
    """JSON has no infinity and no NaN: they are text."""
    if isinstance(x, dict):
        return {str(name): _finite(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(value) for value in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


if __name__ == "__main__":
    main()
