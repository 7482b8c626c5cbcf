"""Reports of real runs, made once."""

import pytest

from tests.parity import small_results


@pytest.fixture(scope="session")
def passing(converted):
    return small_results.passing(converted("mini-pretrain"))


@pytest.fixture(scope="session")
def failing(converted):
    return small_results.failing(converted("mini-pretrain"))
