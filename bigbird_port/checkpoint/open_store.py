from dataclasses import dataclass
from pathlib import Path

from bigbird_port.checkpoint.locate import find_checkpoint, find_flags
from bigbird_port.checkpoint.tensor_bundle import TensorBundle


@dataclass(frozen=True)
class Opened:
    path: Path
    style: str
    store: object
    config_file: Path | None


def open_store(path):
    p = find_checkpoint(path)
    return Opened(p, "original", TensorBundle(p), find_flags(p))
