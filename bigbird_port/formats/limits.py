"""What no honest checkpoint of this model exceeds; more is refused before memory is spent on it.

BigBird large has about 400 weights, with Adam's slots about 1200, and names of at most about 120 characters.
"""

from __future__ import annotations

MAX_TENSORS = 20_000  # more than ten times the largest model with its optimizer
MAX_NODES = 50_000  # of a tree or graph of objects: Keras tracks some five to ten per weight
MAX_ITEMS = 1_000_000  # of all lists and dicts in a training checkpoint: histories of numbers are long
MAX_NAME_BYTES = 512  # of one tensor's whole name
MAX_RANK = 32  # of one shape: what every release of NumPy can hold
MAX_DEPTH = 64  # of nested maps: parameter trees are about ten deep
MAX_OPCODES = 500_000  # of a pickle: torch writes some 30 for a tensor
MAX_OPEN = 5_000  # values of a pickle that are not yet in another: torch puts up to 2000 into a map at once
MAX_SHARDS = 10_000  # of one checkpoint: the largest published ones have some hundreds
MAX_GRID_SLICES = 512  # of a variable cut along several axes: they are compared pairwise
MAX_INDEX_BYTES = 100_000_000  # of a TensorFlow index, an object graph or a pickle: they hold names and shapes alone
MAX_HEADER_BYTES = 100_000_000  # of a safetensors header: the limit of the safetensors library itself
MAX_KEY_EXPANSION = 16  # a TensorFlow index shares key prefixes: its keys are at most this many times its size
MAX_TENSOR_BYTES = 1 << 36  # where a format compresses, so that no file size bounds it: 64 GiB, above any embedding
