"""Probes of what both frameworks share: patterns, packing, and a checkpoint that is converted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from parity.mutants.probes.probe import CONFIG

Found = Iterator[tuple[str, Any]]


def _patterns() -> Found:
    from bigbird_port.families.bigbird.config import BigBirdConfig
    from bigbird_port.sparse.packing import make_packing, packed_pattern
    from bigbird_port.sparse.pattern import fold_repeats, layer_pattern
    from bigbird_port.sparse.static_lists import static_lists

    base = BigBirdConfig(**CONFIG | {"max_position_embeddings": 4096, "num_attention_heads": 4})
    for length, W, r, blocks in (
        *((528, 16, 1, "original"), (640, 16, 3, "original"), (1024, 16, 3, "original"), (4096, 64, 3, "original")),
        *((2048, 64, 3, "original"), (1152, 64, 5, "original"), (704, 64, 3, "original"), (3072, 128, 2, "original")),
        *((528, 16, 2, "transformers"), (112, 16, 2, "transformers"), (144, 16, 2, "transformers")),
    ):
        config = base.replace(block_size=W, num_random_blocks=r, max_encoder_length=length, random_blocks=blocks)
        for layer in (0, 3):
            pattern = layer_pattern(config, layer, length)
            yield f"pattern {length} {W} {r} {blocks} {layer}", pattern
        if pattern is None:
            continue
        yield f"repeats {length} {W} {r}", fold_repeats(pattern)
        yield f"cropped {length} {W} {r}", layer_pattern(config, 1, length // 2 + 5)
        mask = np.arange(length) < np.array([[length], [length // 3], [0], [length // 2 + 1]])
        packing = make_packing(mask, W)
        yield f"packing {length} {W} {r}", packing
        if packing is not None:
            row = packed_pattern(pattern, packing)
            yield f"packed {length} {W} {r}", row
            yield f"static {length} {W} {r}", static_lists(fold_repeats(row))


def _converted() -> Found:
    import safetensors.numpy

    import bigbird_port
    from bigbird_port.conversion.convert import convert

    checkpoint = Path(bigbird_port.__file__).parent / "demo_checkpoint"
    with tempfile.TemporaryDirectory() as folder:
        out, again = Path(folder) / "out", Path(folder) / "again"
        convert(checkpoint, out)
        convert(out / "flax", again)
        for place in (out, again):
            for file in sorted(x for x in place.rglob("*") if x.is_file()):
                name = f"{place.name} {file.relative_to(place)}"
                if file.suffix == ".safetensors":
                    yield name, safetensors.numpy.load_file(file)
                elif file.suffix == ".json" and "manifest" not in file.name:
                    yield name, json.loads(file.read_text())
                elif file.suffix == ".msgpack":
                    yield name, np.frombuffer(file.read_bytes(), np.uint8)


def _positions() -> Found:
    from bigbird_port.schema.positions import extend_positions

    for method in ("tile", "interpolate"):
        yield method, extend_positions(np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32), 19, method)


def _initial() -> Found:
    from bigbird_port.families.bigbird.config import BigBirdConfig
    from bigbird_port.schema.table import schema_records
    from bigbird_port.schema.weights import initial_arrays

    config = BigBirdConfig(**CONFIG)
    yield "records", json.dumps(schema_records(config.family, None), sort_keys=True, default=str)
    for head in config.family.heads:
        for side in ("torch", "flax"):
            yield f"{head} {side}", initial_arrays(config.for_head(head), head, side, 3)


PROBES: dict[str, Callable[[], Found]] = {
    "patterns of many lengths, packed": _patterns,
    "a checkpoint converted, and again from its output": _converted,
    "position embeddings extended": _positions,
    "initial values and schema": _initial,
}
