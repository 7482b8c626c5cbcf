"""Results to report on: a real run of the converted demo checkpoint, and the same with a fault in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from bigbird_port.config import BigBirdConfig
from parity.compare import Scene, compare
from parity.inputs import for_head, make_inputs
from parity.integrity import Check
from parity.metrics import Difference
from parity.results import Condition, Finding, Result, Row
from parity.witness import Setting, Source, Taps, load_witness, pairs

CONDITION = Condition("seeded", batch=1, length=528, inputs="seed 0, without padding 528")
HEADS = ("masked-lm", "qa")
Change = Callable[[str, str, Taps], Taps]  # witness, error, taps -> taps


def real_result(folder, names=("reference", "torch"), heads=HEADS, seed=0, change: Change | None = None):
    """Compare the witnesses on the model in ``folder``, after ``change`` has had its way with their taps."""
    result = Result(heads=list(heads), conditions=[CONDITION], witnesses=names)
    result.checks = [Check("torch weights", True, "46 weights equal the manifest's sha256")]
    result.environment = {"items": {"numpy": np.__version__, "machine": "a test"}, "problems": []}
    config = BigBirdConfig()
    for head in heads:
        witnesses = {name: load_witness(name, Source(folder, head), Setting()) for name in names}
        config = witnesses[names[0]].config
        result.initialised[head] = witnesses[names[0]].initialised
        result.rows += _rows(head, witnesses, config, seed, change or (lambda name, error, taps: taps))
    return result, config


def _rows(head, witnesses, config, seed, change) -> Iterator[Row]:
    inputs = for_head(make_inputs(config, CONDITION.batch, CONDITION.length, seed), head)
    scene = Scene(head, CONDITION.name, dict.fromkeys(witnesses, Setting()), inputs["input_ids"] != config.pad_token_id)
    order = pairs(tuple(witnesses))
    taps, streams = {}, {}
    for name, witness in witnesses.items():
        taps[name], streams[name] = witness.start(inputs)
    for stage in ["embeddings", *range(config.num_hidden_layers), "head"]:
        local = {}
        for value, reference in order if stage != "embeddings" else ():
            fed = witnesses[value].inject(streams[value], witnesses[reference].hidden(streams[reference]))
            own = witnesses[value].finish(fed) if stage == "head" else witnesses[value].layer(stage, fed)[0]
            local[value, reference] = change(value, "local", own)
        for name, witness in witnesses.items() if stage != "embeddings" else ():
            if stage == "head":
                taps[name] = witness.finish(streams[name])
            else:
                taps[name], streams[name] = witness.layer(stage, streams[name])
        for pair in order:
            value, reference = (change(name, "accumulated", taps[name]) for name in pair)
            yield from compare(scene, pair, "accumulated", str(stage), (value, reference))
            if pair in local:
                yield from compare(scene, pair, "local", str(stage), (local[pair], reference))


def shift_one_head(name, error, taps):
    """A fault of torch: one attention head of layer 1 is off in one place."""
    tap = "layer.1.context"
    if name != "torch" or tap not in taps:
        return taps
    context = taps[tap].copy()
    context[0, 8, 1] += 0.01
    return taps | {tap: context}


def with_fault(folder):
    """A failed run: a located fault, a NaN, a check that does not hold, a head that was not compared."""
    result, config = real_result(folder, change=shift_one_head)
    nan = Difference(problem="NaN or Inf", worst_index=(0, 3, 1))
    i = next(i for i, row in enumerate(result.rows) if row.head == "qa" and row.tap == "layer.0.query")
    result.rows[i] = replace(result.rows[i], difference=nan)
    result.checks.append(Check('flax <weights> & "names"', False, "1 of 46 differ: <script>alert('x')</script>"))
    result.heads.append("base")
    result.not_compared["qa"] = ["mlm_loss"]
    row = next(row for row in result.rows if row.tap == "layer.1.context" and not row.passed)
    sentence = f"starts here: {row.tap} of torch against reference: its input is good, its output is not"
    result.located.append(Finding(
        row.head, row.condition, row.value, row.reference, row.tap, "encoder.layer.1.attention.self",
        "fed with the reference's hidden states", sentence, attention_heads=(1,), query_blocks=(0,), positions=("global",),
    ))  # fmt: skip
    return result, config


DETECTION = [
    {"fault": "query transposed", "head": "qa", "caught": True, "tap": "layer.0.query", "factor": 13250.0},
    {"fault": "query transposed", "head": "masked-lm", "caught": True, "tap": "layer.0.query", "factor": 9120.0},
    {"fault": "<b>epsilon</b> & \"more\"", "head": "qa", "caught": False, "tap": None, "factor": 0.25},
]  # fmt: skip
