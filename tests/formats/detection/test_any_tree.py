"""Any bytes under any name in any small tree: it opens, or a ValueError says why not: a short fuzz run."""

import functools
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bigbird_port.conversion.source import open_source
from tests.formats.detection.trees import make_tree, seeds
from tests.formats.detection.whole_trees import whole_trees

corpus = functools.cache(lambda: list(seeds()))
wholes = functools.cache(whole_trees)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_any_tree_opens_or_is_refused(seed):
    root = Path(tempfile.mkdtemp())
    try:
        path = make_tree(random.Random(seed), root, corpus(), wholes())
        try:
            open_source(path)
        except ValueError as error:
            assert str(error).strip()
    finally:
        shutil.rmtree(root)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.sampled_from(["a", "a.bin", "a.safetensors", "a.msgpack", "a.index", "checkpoint"]))
def test_any_bytes_open_or_are_refused(data, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        for given_path in (path, path.parent):
            try:
                open_source(given_path)
            except ValueError as error:
                assert folder in str(error)
