import numpy as np
import pytest

from bigbird_port.schema.layout import contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (70, 3), (16, 32), (33, 17), (2, 5, 33)])
def test_turned_arrays_are_copied_in_order(shape, dtype):
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    turned = contiguous(array.T)
    assert turned.flags.c_contiguous
    assert turned.tobytes() == array.T.tobytes()


def test_what_is_in_order_is_not_copied():
    array = np.ones((3, 4))
    assert contiguous(array) is array


def test_an_empty_array_stays_empty():
    assert contiguous(np.empty((3, 0), np.float32).T).shape == (0, 3)
