"""Random trees of files, of every kind and damaged: whatever is given opens, or is refused by a ValueError, soon.

Not a part of the test suite, which has a short version (tests/formats/detection/test_any_tree.py). To run it:

    python tests/fuzz/fuzz_detection.py SECONDS [SEED]

A finding is printed with the seed of its tree, and ends the run with exit code 1.
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bigbird_port.conversion.source import open_source
from tests.formats.detection.trees import make_tree, seeds
from tests.formats.detection.whole_trees import Tree, whole_trees

MOST_SECONDS = 20  # of one tree, on a busy machine; a reader that hangs takes longer
MOST_GROWTH = 400 << 10  # KiB of memory above that after the first hundred trees


def attempt(seed: int, corpus: list[bytes], wholes: list[Tree]) -> str:
    """Make one tree and open it; returns what came of it. Any error but ValueError is raised."""
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        path = make_tree(rng, root, corpus, wholes)
        try:
            open_source(path)
        except ValueError as error:
            found = str(error)
            assert found.strip(), "an empty message"
            return next((word for word in MESSAGES if word in found), "another refusal")
        return "opened"
    finally:
        shutil.rmtree(root)


# What the refusals are counted by.
MESSAGES = (
    "expected weights, found",
    "expected a BigBird model",
    "another architecture",
    "no weights",
    "no such file",
    "download it first",
    "a link that leads out",
    "cannot be read",
    "not a regular file",
    "truncated",
    "damaged",
    "fit the configuration",
    "not a BigBird",
    "missing",
    "configuration",
)


def main() -> None:
    """Fuzz for the time given."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    wholes = whole_trees()
    corpus, counts, slowest, start = list(seeds()), Counter[str](), (0.0, 0), time.monotonic()
    before = 0
    signal.signal(signal.SIGALRM, _too_slow)
    while time.monotonic() - start < seconds:
        begun = time.monotonic()
        signal.alarm(MOST_SECONDS)
        try:
            counts[attempt(seed, corpus, wholes)] += 1
        except BaseException:
            traceback.print_exc()
            sys.exit(f"seed {seed}: neither opened nor refused by ValueError")
        signal.alarm(0)
        slowest = max(slowest, (time.monotonic() - begun, seed))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if sum(counts.values()) == 100:
            before = memory
        if before and memory - before > MOST_GROWTH:
            sys.exit(f"seed {seed}: memory grew from {before} to {memory} KiB")
        seed += 1
    corpora = f"{len(corpus)} files and {len(wholes)} whole models"
    lines = [f"{sum(counts.values())} trees from {corpora}; slowest {slowest[0]:.2f} s (seed {slowest[1]})"]
    lines += [f"memory {before} to {memory} KiB", *(f"{count:8} {what}" for what, count in counts.most_common())]
    sys.stdout.write("\n".join(lines) + "\n")


class TooSlow(BaseException):
    """An opening that lasts too long: no error of the system, which a reader may take for a damaged file."""


def _too_slow(*_: object) -> None:
    raise TooSlow(f"more than {MOST_SECONDS} s")


if __name__ == "__main__":
    main()
