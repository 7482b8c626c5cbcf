"""What config.json holds beyond the model reaches every target, comes back, and is verified."""

import json

import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.source import open_source
from bigbird_port.conversion.verify import verify
from bigbird_port.families.bigbird.config import BigBirdConfig, read_config
from parity.checks.integrity import check_integrity
from tests.conversion.brought.sources import CONFIG, numbered, write_torch

KEPT = {
    "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
    "label2id": {"negative": 0, "neutral": 1, "positive": 2},
    "problem_type": "single_label_classification",
    "task_specific_params": {"reviews": {"lengths": [128, 256], "early": True}},
    "finetuning_task": "reviews",
    "output_attentions": True,
}
WRITTEN_BY = {
    "transformers_version": "4.57.1",
    "dtype": "float32",
    "torch_dtype": "float32",
    "_name_or_path": "/home/me",
}
HEAD = "sequence-classification"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A classifier's folder as transformers writes it, with labels and fields of its user's."""
    folder = write_torch(tmp_path_factory.mktemp("kept") / "in", numbered(HEAD), HEAD)
    values = json.loads((folder / "config.json").read_text())
    del values["num_labels"]  # id2label stands for it
    (folder / "config.json").write_text(json.dumps(values | KEPT | WRITTEN_BY))
    return folder


@pytest.fixture(scope="module")
def out(source, tmp_path_factory):
    """It, converted with another dtype."""
    folder = tmp_path_factory.mktemp("kept") / "out"
    convert(source, folder, Settings(to=("torch", "flax", "neutral"), dtype="bfloat16"))
    return folder


def kept(values):
    return {name: values.get(name) for name in KEPT}


@pytest.mark.parametrize("target", ["torch", "flax", "neutral"])
def test_every_target_and_the_manifest_hold_it(out, target):
    assert kept(json.loads((out / target / "config.json").read_text())) == KEPT
    assert kept(json.loads((out / "manifest.json").read_text())["config"]) == KEPT
    assert kept(open_source(out / target).config.to_json_values("x")) == KEPT  # of the neutral form: its metadata's


def test_what_was_true_of_the_sources_file_alone_is_left_out_and_said(source, out):
    assert not set(WRITTEN_BY) & set(json.loads((out / "torch/config.json").read_text()))
    (note,) = [note for note in open_source(source).notes if "not carried" in note]
    assert all(name in note for name in WRITTEN_BY)
    assert open_source(out / "torch").notes == ()


def test_from_torch_to_flax_and_back_it_is_the_same_file(source, out, tmp_path):
    convert(out / "flax", tmp_path / "back", Settings(to=("torch",)))
    assert (tmp_path / "back/torch/config.json").read_bytes() == (out / "torch/config.json").read_bytes()


def test_a_changed_label_is_seen_by_verify_and_parity(source, tmp_path):
    convert(source, tmp_path / "out")
    assert verify(tmp_path / "out").passed
    assert all(check.passed for check in check_integrity(tmp_path / "out"))
    path = tmp_path / "out/flax/config.json"
    path.write_text(path.read_text().replace('"neutral"', '"natural"', 1))
    failed = [check.name for check in verify(tmp_path / "out").checks if not check.passed]
    assert "flax configuration" in failed
    assert "torch configuration" not in failed
    (wrong,) = [check for check in check_integrity(tmp_path / "out") if not check.passed]
    assert (wrong.name, wrong.detail) == ("flax configuration", "differs in id2label")


def test_a_field_of_the_users_that_is_gone_is_seen(source, tmp_path):
    convert(source, tmp_path / "out")
    path = tmp_path / "out/torch/config.json"
    values = json.loads(path.read_text())
    del values["finetuning_task"]
    path.write_text(json.dumps(values, indent=2) + "\n")
    (wrong,) = [check for check in check_integrity(tmp_path / "out") if not check.passed]
    assert wrong.detail == "differs in finetuning_task"


def test_the_originals_flags_have_no_place_for_it_and_convert_says_so(tmp_path):
    config = CONFIG.replace(id2label=dict(enumerate("abc")), extra={"finetuning_task": "x"})
    folder = write_torch(tmp_path / "in", numbered("pretraining"), "pretraining", config)
    report = convert(folder, tmp_path / "out", Settings(to=("tf", "torch")))
    (note,) = [note for note in report.plan.notes if "not carried into tf/" in note]
    assert note.startswith("id2label, label2id, finetuning_task: ")
    assert "id2label" not in (tmp_path / "out/tf/bigbird.config").read_text()


def test_the_models_read_it_and_write_it_back(out, tmp_path):
    import models_flax
    import models_torch

    torch_model = models_torch.BigBirdForSequenceClassification.from_pretrained(out)
    flax_model = models_flax.FlaxBigBirdForSequenceClassification.from_pretrained(out)
    assert torch_model.config == flax_model.config
    assert torch_model.config.id2label[2] == "positive"
    assert flax_model.config.task_specific_params == KEPT["task_specific_params"]
    torch_model.save_pretrained(tmp_path / "torch")
    flax_model.save_pretrained(tmp_path / "flax")
    flax_model.save_pretrained(tmp_path / "safe", safe_serialization=True)
    for folder in ("torch", "flax", "safe"):
        assert kept(json.loads((tmp_path / folder / "config.json").read_text())) == KEPT
        assert read_config(tmp_path / folder / "config.json") == torch_model.config


def test_a_checkpoint_of_the_original_gains_nothing(converted):
    values = json.loads((converted("mini-pretrain") / "torch/config.json").read_text())
    plain = BigBirdConfig.from_dict(values)
    assert plain.extra == {}
    assert not set(KEPT) - {"problem_type"} & set(values)


@pytest.mark.peer
def test_transformers_finds_the_labels_and_no_dtype_that_is_not_true(out):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(out / "torch")
    assert config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    assert (config.label2id, config.problem_type) == (KEPT["label2id"], KEPT["problem_type"])
    assert config.task_specific_params == KEPT["task_specific_params"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out / "torch", dtype="auto")
    assert model.config.id2label[2] == "positive"
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.bfloat16"}
