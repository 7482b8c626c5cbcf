"""Results to report on: a real run of the converted demo checkpoint, and one with faults in it."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np

from bigbird_port.models.folder import read_folder_config
from parity.checks.integrity import Check
from parity.measure.metrics import Difference
from parity.reports.report import Report
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.with_torch import TorchWitness

HEADS = ("masked-lm", "qa", "base")
MARKUP = "<b>&\"'</b><script>alert(1)</script>|`]]>"
DETECTION = [
    {"fault": "query transposed", "head": "qa", "caught": True, "tap": "layer.0.query", "factor": 13250.0},
    {"fault": "query transposed", "head": "base", "caught": True, "tap": "layer.0.query", "factor": 9120.0},
    {"fault": MARKUP, "head": "qa", "caught": False, "tap": None, "factor": 0.25},
]


def run(folder, heads=HEADS, seed=0, witnesses=("torch", "reference")):
    """Compare the witnesses on the longest inputs, so that attention is block-sparse."""
    return run_parity(folder, heads, Options(batch=1, seed=seed, witnesses=witnesses))


def passing(folder):
    """A report of a run that passed."""
    return Report(run(folder), config_of(folder))


def failing(folder):
    """A report of a run on a model with a fault; then a NaN, a head that was not compared, and names full of markup."""
    with patch.object(TorchWitness, "step", shift_one_head(TorchWitness.step)):
        result = run(folder)
    nan = Difference(problem="NaN or Inf", worst_index=(0, 3, 1))
    i = next(i for i, row in enumerate(result.rows) if row.head == "qa" and row.tap == "layer.0.query")
    result.rows[i] = replace(result.rows[i], difference=nan)
    result.checks.append(Check(MARKUP, False, f"1 of 46 differ: {MARKUP}"))
    result.heads.append("causal-lm")
    result.not_compared["qa"] = [MARKUP]
    result.environment = {"items": {"numpy": np.__version__, MARKUP: MARKUP}, "problems": [{"name": "denormals"}]}
    result.conditions[0] = replace(result.conditions[0], inputs=MARKUP)
    return Report(result, config_of(folder), DETECTION)


def shift_one_head(right):
    """Return TorchWitness.step with a fault: in layer 1, the context of attention head 1 is off at one token."""

    def faulty(self, step, stream):
        taps, after = right(self, step, stream)
        if step.number == 1:
            taps["layer.1.context"] = taps["layer.1.context"].copy()
            taps["layer.1.context"][0, 40, 1] += 0.01
        return taps, after

    return faulty


def config_of(folder):
    return read_folder_config(folder, "torch").to_dict()
