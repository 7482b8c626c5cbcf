"""A datasets.Dataset goes through the tokenizer's call, the collators and Trainer, in a process without TensorFlow."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.peer

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import datasets
from transformers import Trainer, TrainingArguments
from bigbird_port.integrations import transformers as ported
from bigbird_port.tokenizers import BigBirdTokenizerFast, MaskingCollator, PaddingCollator
from tests.integrations.small import CONFIGS
from tests.vocabulary import train_vocabulary

folder = Path(sys.argv[1])
(folder / "spiece.model").write_bytes(train_vocabulary())
tokenizer = BigBirdTokenizerFast(folder / "spiece.model")
texts = datasets.Dataset.from_dict({"text": ["the model", "a question of the model"] * 4, "label": [0, 1] * 4})
encode = lambda batch: tokenizer(batch["text"], truncation=True, max_length=16)
rows = texts.map(encode, batched=True, remove_columns=["text"])
again = texts.map(encode, batched=True, remove_columns=["text"])
masked = rows.remove_columns("label")

def train(name, data, collator, place):
    own = CONFIGS["bigbird"].replace().to_dict()
    model = getattr(ported, f"Ported{name}")(getattr(ported, "PortedBigBirdConfig")(**own))
    settings = TrainingArguments(str(folder / place), max_steps=12, per_device_train_batch_size=4, report_to=[],
                                 use_cpu=True, disable_tqdm=True, learning_rate=1e-2, save_strategy="no",
                                 lr_scheduler_type="constant")
    run = Trainer(model, settings, train_dataset=data, data_collator=collator)
    before = run.evaluate(data)["eval_loss"]
    run.train()
    return run, [before, run.evaluate(data)["eval_loss"]]

run, losses = train("BigBirdForSequenceClassification", rows, PaddingCollator(tokenizer), "classes")
found = run.predict(rows)
_, masked_losses = train("BigBirdForMaskedLM", masked, MaskingCollator(tokenizer, mlm_probability=0.5), "words")
print(json.dumps({
    "columns": rows.column_names, "fingerprints": [rows._fingerprint, again._fingerprint],
    "first": rows[1]["input_ids"], "expected": tokenizer("a question of the model")["input_ids"],
    "shape": list(found.predictions.shape),
    "losses": {"classes": losses, "words": masked_losses},
}))
"""


@pytest.mark.slow
def test_a_dataset_is_encoded_and_trained_on(tmp_path):
    for name in ("datasets", "transformers", "accelerate"):
        pytest.importorskip(name)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=os.environ | {"USE_TF": "0", "USE_FLAX": "0", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"input_ids", "attention_mask", "label"} <= set(found["columns"])
    assert found["first"] == found["expected"]
    assert found["shape"] == [8, 2]
    for task, (before, after) in found["losses"].items():
        assert after < before - 0.01, task
    first, second = found["fingerprints"]
    assert first == second  # the tokenizer is hashed alike, so that a map is found in datasets' cache
