"""Every kind of source made from a golden checkpoint, and every target: what docs/conversion.md shows as a table."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.source import open_source
from bigbird_port.conversion.targets import Choices

ALL = ("torch", "flax", "tf", "neutral")
# target in the table -> (settings, folder of the output)
TARGETS = {
    "torch": (Settings(to=("torch",)), "torch"),
    "torch, sharded": (Settings(to=("torch",), choices=Choices(max_shard_size=20_000)), "torch"),
    "flax": (Settings(to=("flax",)), "flax"),
    "flax, orbax": (Settings(to=("flax",), choices=Choices(flax_format="orbax")), "flax"),
    "tf": (Settings(to=("tf",)), "tf"),
    "tf, BERT names": (Settings(to=("tf",), choices=Choices(tf_names="bert")), "tf"),
    "neutral": (Settings(to=("neutral",)), "neutral"),
}


def make_sources(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Return every kind of source that is made from one checkpoint, by what the table calls it."""
    sources = {"TensorFlow checkpoint": checkpoint}
    for name, (settings, inner) in TARGETS.items():
        if name != "tf":
            out = folder / name.replace(", ", "-").replace(" ", "-")
            convert(checkpoint, out, settings)
            sources[_SOURCE_NAMES[name]] = out / inner
    sources["torch pickle (.bin)"] = _pickle(sources["torch (safetensors)"], folder / "bin")
    return sources


_SOURCE_NAMES = {
    "torch": "torch (safetensors)",
    "torch, sharded": "torch, sharded",
    "flax": "Flax (msgpack)",
    "flax, orbax": "Flax, Orbax",
    "tf, BERT names": "TensorFlow checkpoint, BERT names",
    "neutral": "neutral",
}


def _pickle(torch_folder: Path, folder: Path) -> Path:
    import torch

    folder.mkdir()
    arrays = safetensors.numpy.load_file(torch_folder / "model.safetensors")
    torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_bytes((torch_folder / "config.json").read_bytes())
    return folder


def weights(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every weight of a source, in canonical form."""
    source = open_source(path)
    found = {name: source.weight(name, own) for name, own in source.match(source.head).sources.items()}
    return {name: (x.dtype.name, x.shape, np.ascontiguousarray(x).tobytes()) for name, x in found.items()}


def cell(source: Path, target: str, folder: Path, expected: dict) -> str:
    """Convert, read back, compare with the source's own weights: "equal", or what differs."""
    settings, inner = TARGETS[target]
    convert(source, folder / "out", settings, overwrite=True)
    return compare(weights(folder / "out" / inner), expected)


def compare(found: dict, expected: dict) -> str:
    """ "equal" bit for bit; biases that the original does not have without use_bias must be zero where they are."""
    for name in found.keys() | expected.keys():
        one, other = found.get(name), expected.get(name)
        if one is None or other is None:
            if not name.endswith("attention.output.dense.bias") or any((one or other)[2]):
                return f"differs in {name}"
        elif one != other:
            return f"differs in {name}"
    return "equal" if found else "nothing compared"


def table(rows: dict[str, dict[str, str]]) -> str:
    """The matrix as Markdown."""
    lines = [f"| from \\ to | {' | '.join(TARGETS)} |", f"|---|{'---|' * len(TARGETS)}"]
    return "\n".join([*lines, *(f"| {source} | {' | '.join(rows[source].values())} |" for source in rows)])
