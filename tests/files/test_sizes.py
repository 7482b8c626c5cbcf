import pytest

from bigbird_port.files.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("20B", 20), ("5GB", 5 * 10**9), ("2GiB", 2 << 30), ("1.5 MiB", 3 << 19), ("7kb", 7000), (300, 300)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.5", "-3", "5TB", "GB", "1e9", "1 2", 0, -1])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size: expected a number of bytes such as 500MB or 2GiB"):
        parse_size(text)
