"""A ninth head, made as CONTRIBUTING.md says: a number for each label of a text, from the mean of its hidden states.

This file is its record, with its rows of the schema. with_torch.py and with_flax.py are its module in each framework,
reference.py is its float64 reference.
"""

from dataclasses import replace

from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.family import Head, Tap
from bigbird_port.families.losses import LossTerm
from bigbird_port.schema.table import Weight

NAME = "mean-regression"
OWNERS = frozenset({NAME})
HEAD = Head(
    NAME,
    "BigBirdForMeanRegression",
    (Tap("logits", "batch labels", "regressor", kind="logits", scores=True),),
    (LossTerm("classification_loss", ("logits", "labels"), ("num_labels", "problem_type")),),
    "classes",
    settings={"problem_type": "regression"},
    settings_note="labels are numbers",
    unjudged="the original has no such head",
    packages={"torch": "tests.families.mean_pooled.with_torch", "flax": "tests.families.mean_pooled.with_flax"},
    reference="tests.families.mean_pooled.reference",
)
ROWS = (
    Weight(
        "regressor.kernel",
        "hidden label",
        (),
        "regressor.weight",
        "label hidden",
        "regressor/kernel",
        "hidden label",
        "normal",
        heads=OWNERS,
        fill="initialise",
    ),
    Weight(
        "regressor.bias",
        "label",
        (),
        "regressor.bias",
        "label",
        "regressor/bias",
        "label",
        "zeros",
        heads=OWNERS,
        fill="initialise",
    ),
)
FAMILY = replace(BIGBIRD, heads={**BIGBIRD.heads, NAME: HEAD}, rows=(*BIGBIRD.rows, *ROWS))
