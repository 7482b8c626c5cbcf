"""Saving and loading."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parity.conditions.bench import TRUTH, Bench
from parity.given.inputs import default_length, make_inputs
from parity.run.results import Row


def saved(bench: Bench) -> Iterator[Row]:
    """Save, load, and run what was loaded but for its layers, whose weights must be the same bits."""
    length = bench.options.length or default_length(bench.config)
    inputs = bench.own_inputs(make_inputs(bench.config, bench.options.batch, length, bench.seed))
    first, stream = bench.reference.start(inputs)
    truth = first | bench.returned(bench.reference.finish(stream))
    for user in bench.users:
        with tempfile.TemporaryDirectory() as folder:
            loaded: Any = user.reloaded(Path(folder))
            before, after = bench.witnesses[user.name].digests(), loaded.digests()
            if differing := sorted(x for x in before.keys() | after.keys() if before.get(x) != after.get(x)):
                problem = f"saved and loaded, {len(differing)} weights differ, such as {differing[0]}"
                yield bench.scene(inputs).failed((user.name, TRUTH), "called", bench.name, problem)
                continue
            taps, own = loaded.start(inputs)
            found = taps | loaded.finish(loaded.inject(own, bench.reference.hidden(stream)))
            yield from bench.rows(user.name, inputs, found, truth, "local")
