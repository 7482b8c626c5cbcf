"""What people run with Trainer, PEFT and accelerate, in a process of its own; it prints what came of it as JSON."""

import json
import sys
import warnings
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

import models_torch
from bigbird_port.integrations import transformers as ported
from parity.given.golden import log_softmax, read_golden
from tests.integrations.small import CONFIGS, NAMED, ids, product

ROWS = 8
LABELS = {
    "BigBirdForSequenceClassification": lambda i, row: {"labels": i % 2},
    "BigBirdForTokenClassification": lambda i, row: {"labels": row % 2},
    "BigBirdForMultipleChoice": lambda i, row: {"labels": i % 2},
    "BigBirdForQuestionAnswering": lambda i, row: {"start_positions": 3, "end_positions": 5},
    "BigBirdForMaskedLM": lambda i, row: {"labels": row},
    "BigBirdForCausalLM": lambda i, row: {"labels": row},
    "BigBirdPegasusForConditionalGeneration": lambda i, row: {"labels": row[:6]},
}


def rows(name):
    """Training data of a head; of a choice two texts each."""
    texts = ids(2 * ROWS, 24)
    choice = NAMED[name][1].inputs == "choices"
    return [
        {"input_ids": texts[2 * i : 2 * i + 2] if choice else texts[i], **LABELS[name](i, texts[i])}
        for i in range(ROWS)
    ]


def arguments(folder, **more):
    settings = {"max_steps": 8, "per_device_train_batch_size": 4, "report_to": [], "save_steps": 8, "logging_steps": 1}
    settings |= {"use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    return TrainingArguments(folder, **settings | more)


def trained(model, folder, name, **more):
    """Losses of all rows before and after training, and whether the checkpoint gives what predict gave."""
    run = Trainer(model, arguments(folder, **more), train_dataset=rows(name))
    before = run.predict(rows(name)).metrics["test_loss"]
    run.train()
    found = run.predict(rows(name))
    kind = getattr(models_torch, name)
    keywords = {} if hasattr(model, "product") else {"config": model.config}  # core models: weights alone are saved
    again = kind.from_pretrained(Path(folder) / "checkpoint-8", **keywords)
    batch = {key: torch.as_tensor(value)[None] for key, value in rows(name)[0].items()}
    with torch.no_grad():
        scores = again(**batch)[1].numpy()
    first = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    return {
        "losses": [before, found.metrics["test_loss"]],
        "checkpoint": float(abs(scores[0] - first[0]).max()),
    }


def of_product(name, **changes):
    family, _ = NAMED[name]
    return getattr(ported, f"Ported{family.config.__name__}")(**CONFIGS[family.name].replace(**changes).to_dict())


def golden(folder, converted, case_file):
    """The worst error of Trainer.predict against the original's log-probabilities."""
    case = read_golden(Path(case_file))
    model = ported.PortedBigBirdForMaskedLM.from_pretrained(converted, max_encoder_length=case.max_encoder_length)
    given = {name: value for name, value in case.inputs.items() if name.endswith(("_ids", "_mask"))}
    data = [{name: torch.tensor(value[i]) for name, value in given.items()} for i in range(len(given["input_ids"]))]
    found = Trainer(model, arguments(folder)).predict(data).predictions
    real = case.inputs["input_ids"] != 0
    return float(abs(log_softmax(found) - case.tensors["mlm_log_probs"])[real].max())


def adapted():
    """LoRA on queries and values: what is trained, and what merging changes."""
    from peft import LoraConfig, get_peft_model

    model = product("BigBirdForSequenceClassification")
    own = ported.PortedBigBirdForSequenceClassification(of_product("BigBirdForSequenceClassification"))
    own.load_state_dict(model.state_dict())
    with_adapter = get_peft_model(own, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))
    optimizer = torch.optim.SGD([x for x in with_adapter.parameters() if x.requires_grad], lr=1.0)
    for _ in range(2):
        with_adapter(input_ids=ids(), labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
    with_adapter.eval()
    with torch.no_grad():
        before, plain = with_adapter(input_ids=ids()).logits, model(ids()).logits
        merged = with_adapter.merge_and_unload()(input_ids=ids()).logits
    return {"learned": float(abs(before - plain).max()), "merged": float(abs(merged - before).max())}


def spread(folder):
    """accelerate's own ways: device_map, and prepare."""
    import accelerate

    product("BigBirdForSequenceClassification").save_pretrained(folder)
    model = ported.PortedBigBirdForSequenceClassification.from_pretrained(folder, device_map="auto")
    ready = accelerate.Accelerator(cpu=True).prepare(model)
    core = models_torch.BigBirdForSequenceClassification.from_pretrained(folder, device_map="auto")
    with torch.no_grad():
        return float(abs(ready(ids()).logits - core(ids()).logits).max())


def main(folder, converted, case_file):
    warnings.simplefilter("ignore")
    results = {}
    for name in LABELS:
        model = getattr(ported, f"Ported{name}")(of_product(name))
        results[name] = trained(model, f"{folder}/{name}", name)
    name = "BigBirdForSequenceClassification"
    checkpointed = getattr(ported, f"Ported{name}")(of_product(name))
    results["gradient_checkpointing"] = trained(checkpointed, f"{folder}/again", name, gradient_checkpointing=True)
    core = models_torch.BigBirdForSequenceClassification(CONFIGS["bigbird"].replace())
    results["core"] = trained(core, f"{folder}/core", name)
    again = models_torch.BigBirdForSequenceClassification(CONFIGS["bigbird"].replace())
    kinds = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    results["core_checkpointing"] = trained(again, f"{folder}/core-again", name, **kinds)
    results["golden"] = golden(f"{folder}/golden", converted, case_file)
    results["peft"] = adapted() if "peft" in sys.argv[4:] else None
    results["accelerate"] = spread(f"{folder}/spread")
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
