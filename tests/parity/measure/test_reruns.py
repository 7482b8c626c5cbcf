"""The same comparison again, under other numbers of threads and without oneDNN, is no regression and never red."""

from contextlib import contextmanager

import pytest
import torch

from parity.measure.baseline import check, save
from tests.parity.small_results import run

RERUNS = 12
THREADS = (1, 2, 3, 4)


@contextmanager
def computing_with(threads, onednn):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=onednn):
            yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_reruns_under_other_settings_stay_green(converted, tmp_path):
    folder, path = converted("mini-pretrain"), tmp_path / "baseline.json"
    save([run(folder, seed=seed) for seed in range(4)], path)
    for i in range(RERUNS):
        with computing_with(THREADS[i % len(THREADS)], onednn=i % 3 != 0):
            result = run(folder, seed=4 + i)
        assert result.passed, (i, list(result.failures)[:3])
        assert check(result, path) == [], i
