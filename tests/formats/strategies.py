"""Random sets of arrays: many names, scalars, empty ones, all dtypes that every format has."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from tests.formats.execute import numbered

DTYPES = [np.dtype(d) for d in ("f4", "f8", "f2", ml_dtypes.bfloat16, "i1", "i2", "i4", "i8", "u1", "bool")]
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
arrays = st.builds(lambda dtype, shape, start: numbered(dtype, *shape, start=start),
                   st.sampled_from(DTYPES), shapes, st.integers(0, 99))  # fmt: skip
# No name is the parent of another: leaves and inner nodes are told apart by their letters.
names = st.builds(lambda parents, leaf: "/".join([*parents, leaf]),
                  st.lists(st.sampled_from(["layer", "0", "ä", "x.y"]), max_size=3), st.text("klm\n\"é", min_size=1,
                                                                                             max_size=4))  # fmt: skip
array_sets = st.dictionaries(names, arrays, max_size=25)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
