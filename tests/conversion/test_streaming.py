"""The engine of a conversion: what its threads leave behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bigbird_port.conversion.streaming import Weight, stream
from bigbird_port.conversion.targets import Choices, plan_target
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.table import dims, weights_of

TINY = BigBirdConfig(
    vocab_size=3, hidden_size=2, num_hidden_layers=1, num_attention_heads=1, intermediate_size=3, block_size=2
)


def test_nothing_is_written_after_a_failure(tmp_path: Path) -> None:
    """Files are closed behind the last writer: a late write would reach whatever has its descriptor by then."""
    target = plan_target("neutral", TINY, "base", np.dtype(np.float32), Choices())
    (tmp_path / "neutral").mkdir()
    begun, failed, ended = threading.Event(), threading.Event(), threading.Event()

    def damaged() -> Iterator[np.ndarray]:
        begun.wait(10)
        failed.set()
        raise ValueError("damaged")

    def slow(count: int) -> Iterator[np.ndarray]:
        begun.set()
        yield np.ones(1, np.float32)
        failed.wait(10)
        ended.wait(0.2)
        yield np.ones(count - 1, np.float32)
        ended.set()

    rows = list(weights_of(TINY, "base", "torch"))
    counts = [int(np.prod(row.shape(TINY))) for row in rows]
    pieces = [damaged] + [lambda count=count: slow(count) for count in counts[1:]]
    weights = [Weight(row.name, row.axes, count, of) for row, count, of in zip(rows, counts, pieces, strict=True)]
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(ValueError, match="damaged"):
            stream(weights, [target], tmp_path, np.dtype(np.float32), dims(TINY), lambda name, size: None, threads)
        assert ended.is_set()
        assert threads.submit(sum, (1, 2)).result(1) == 3  # whose threads they are may go on with them
