"""``make test-versions``: run every stack, and write docs/versions.md. ``python -m tests.versions NAME`` runs one."""

import sys
import tempfile
from pathlib import Path

from tests.versions.matrix import STACKS
from tests.versions.page import PAGE, page
from tests.versions.run import run

if __name__ == "__main__":
    names = sys.argv[1:]
    chosen = [stack for stack in STACKS if not names or stack.name in names]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [run(stack, Path(folder)) for stack in chosen]
    text = page(outcomes)
    if names:
        sys.stdout.write(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
    sys.exit(0 if outcomes and all(outcome.passed for outcome in outcomes) else 1)
