"""Gates for the tests: one that compares packings, one that compares nothing, one that is red, one that may not end."""

import time

import numpy as np

from parity.mutants.gate import DEFAULT, THOROUGH, Stage

MASK_BL = np.arange(40) < np.array([[40], [17], [0]])


def packed():
    from bigbird_port.sparse.packing import make_packing

    found = make_packing(MASK_BL, 8)
    return [] if found is None else [found.blocks.tolist(), list(map(tuple, found.texts))]


def compares():
    expected = [[0, 1, 2, 3, 4, 5, 6, 7, 10], [(0, 5), (5, 3), (8, 1)]]
    return "" if packed() == expected else "other blocks"


def stages(into):
    return [Stage("runs", DEFAULT, lambda: packed() and ""), Stage("packing", THOROUGH, compares)]


def blind(into):
    return [Stage("packing", DEFAULT, lambda: packed() and "")]


def red(into):
    return [Stage("packing", DEFAULT, lambda: "always red")]


def endless(into):
    def run():
        while packed()[0][-1] != 10:
            time.process_time()
        return ""

    return [Stage("packing", DEFAULT, run)]


def of_the_demo(into):
    """The second stage of the real gate: a model whose batch is packed."""
    from parity.mutants.gate import stages as real

    return [next(stage for stage in real(into) if stage.level == DEFAULT)]
