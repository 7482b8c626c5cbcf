"""convert --optimizer: slots to each framework and back, bit for bit; and what cannot be carried is refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.diff import diff
from bigbird_port.conversion.inspect_source import inspect
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.verify import verify
from bigbird_port.schema.table import weights_of
from bigbird_port.training.carried import Asked
from tests.conftest import GOLDEN, SHARED, require
from tests.training.checkpoints import arrays_of, changed
from tests.training.steps import FOLDERS, MINI, steps_of

SOME = (MINI, "from-zero", "adafactor", "adam")
EACH = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in (MINI, *FOLDERS)]
WEIGHT = "bert/encoder/layer_0/output/dense/kernel"


def settings(to=("torch", "flax"), **asked):
    choices = {name: asked.pop(name) for name in ("flax_format", "tf_names") if name in asked}
    config = {name: asked.pop(name) for name in ("config_file", "num_attention_heads", "dtype") if name in asked}
    return Settings(to=to, training=Asked(**asked), choices=Choices(**choices), **config)


@pytest.mark.parametrize("name", EACH)
def test_there_and_back_is_the_original_bit_for_bit(name, tmp_path):
    steps = steps_of(name)
    out = tmp_path / "out"
    convert(steps.checkpoint, out, settings())
    for framework in ("torch", "flax"):
        back = tmp_path / framework
        convert(out / framework, back, settings(("tf",)))
        for end in ("index", "data-00000-of-00001"):
            file = f"{steps.checkpoint.name}.{end}"
            assert (back / "tf" / file).read_bytes() == (steps.folder / file).read_bytes()
        flags = json.loads((back / "tf/bigbird.config").read_text())
        told = (
            "optimizer",
            "learning_rate",
            "num_train_steps",
            "num_warmup_steps",
            "optimizer_beta2",
            "weight_decay_rate",
        )
        assert {flag: flags[flag] for flag in told} == {flag: steps.flags[flag] for flag in told}
    assert verify(out, steps.checkpoint).passed


def test_a_run_goes_back_to_the_original_though_nobody_asks_for_its_state(tmp_path):
    """As docs/training.md says it, without --optimizer; elsewhere it is left behind, and a line says so."""
    steps = steps_of(MINI)
    convert(steps.checkpoint, tmp_path / "out", settings(("torch",)))
    run = CliRunner().invoke(main, ["convert", str(tmp_path / "out"), str(tmp_path / "back"), "--to", "tf"])
    assert run.exit_code == 0, run.output
    file = f"{steps.checkpoint.name}.data-00000-of-00001"
    assert (tmp_path / "back/tf" / file).read_bytes() == (steps.folder / file).read_bytes()
    for options in (["--to", "torch"], ["--to", "tf", "--dtype", "bfloat16"], ["--to", "tf", "--head", "masked-lm"]):
        other = tmp_path / "-".join(options)
        said = CliRunner().invoke(main, ["convert", str(tmp_path / "out"), str(other), *options])
        assert said.exit_code == 0, said.output
        assert "the training state beside the weights is left behind: --optimizer carries it" in said.output
        assert "training" not in json.loads((other / "manifest.json").read_text())


SUMMARIES = pytest.mark.parametrize("name", ["tiny-pegasus", "tiny-coupled", "mini-pegasus"])


@SUMMARIES
def test_a_summary_run_is_there_and_back_bit_for_bit(name, tmp_path):
    """Without attention biases the original's scripts hold the position table still, so that it has no slots."""
    golden = require(GOLDEN[name])
    (index,) = golden.checkpoint.glob("*.index")
    plan = convert(golden.checkpoint, tmp_path / "out", settings()).plan
    assert (plan.training.state.training.optimizer, plan.training.state.training.schedule) == ("Adafactor", "rsqrt")
    still = "embeddings.position_embeddings.embedding" in plan.training.state.not_trained
    assert still == (not plan.config.use_bias)
    for framework in ("torch", "flax"):
        convert(tmp_path / "out" / framework, tmp_path / framework, settings(("tf",)))
        file = f"{index.stem}.data-00000-of-00001"
        assert (tmp_path / framework / "tf" / file).read_bytes() == (golden.checkpoint / file).read_bytes()


@pytest.mark.slow  # Orbax takes its time
def test_orbax_holds_slots_too(tmp_path):
    steps = steps_of(MINI)
    convert(steps.checkpoint, tmp_path / "out", settings(("flax",), flax_format="orbax"))
    convert(tmp_path / "out", tmp_path / "back", settings(("tf",)))
    file = f"{steps.checkpoint.name}.data-00000-of-00001"
    assert (tmp_path / "back/tf" / file).read_bytes() == (steps.folder / file).read_bytes()
    assert not (tmp_path / "out/flax/training.safetensors").exists()


def test_slots_lie_as_their_weights_do(tmp_path):
    steps = steps_of("adafactor")
    convert(steps.checkpoint, tmp_path / "out", settings())
    original = arrays_of(steps.checkpoint)
    torch, flax = (load_file(tmp_path / "out" / name / "training.safetensors") for name in ("torch", "flax"))
    kernel, rows, columns = (
        "encoder.layer.0.output.dense.kernel",
        original[f"{WEIGHT}/Adafactor"],
        original[f"{WEIGHT}/Adafactor_1"],
    )
    assert rows.shape != columns.shape
    for found, row, column in ((flax, rows, columns), (torch, columns, rows)):
        np.testing.assert_array_equal(found[f"{kernel}/row"], row)
        np.testing.assert_array_equal(found[f"{kernel}/column"], column)
    np.testing.assert_array_equal(
        torch["encoder.layer.0.output.dense.bias/v"], original["bert/encoder/layer_0/output/dense/bias/Adafactor"]
    )


def test_the_names_of_bert_are_the_same_state(tmp_path):
    """3-D kernels, adam_m and adam_v: the same files as from today's names, and back in either spelling."""
    steps, bert = steps_of("warmup"), SHARED / "golden/tiny-training/warmup-bert-names/model.ckpt-20"
    convert(bert, tmp_path / "bert", settings(config_file=steps.folder / "pretrain.config"))
    convert(steps.checkpoint, tmp_path / "today", settings())
    for file in ("torch/training.safetensors", "flax/training.safetensors", "torch/training.json"):
        assert (tmp_path / "bert" / file).read_bytes() == (tmp_path / "today" / file).read_bytes()
    convert(tmp_path / "today", tmp_path / "back", settings(("tf",), tf_names="bert"))
    found, expected = arrays_of(tmp_path / "back/tf/model.ckpt-20"), arrays_of(bert)
    assert found.keys() - {"global_step"} == expected.keys() - {"global_step"}
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x)


def test_who_decays_and_who_trains_is_the_schemas_to_say():
    steps = steps_of(MINI)
    rows = {row.name: row for row in weights_of(steps.source.config, "pretraining")}
    decays = {name for name, row in rows.items() if row.decays}
    assert {"cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.beta"} < decays
    assert {name for name in decays if not name.endswith((".kernel", ".embedding"))} == {
        "cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.beta"}  # fmt: skip
    still = {
        name for name, row in rows.items() if not row.trains(steps.source.config, "pretraining", {"use_nsp": False})
    }
    assert still == {"pooler.kernel", "pooler.bias", "cls.seq_relationship.kernel", "cls.seq_relationship.bias"}
    without = steps.source.config.replace(use_bias=False)
    biases = {row.name for row in weights_of(without, "pretraining")
              if not row.trains(without, "pretraining", {"use_nsp": True})}  # fmt: skip
    assert biases == {f"encoder.layer.{i}.attention.output.dense.bias" for i in (0, 1)}


def test_inspect_counts_and_diff_compares(tmp_path):
    steps = steps_of(MINI)
    convert(steps.checkpoint, tmp_path / "out", settings())
    found = inspect(steps.checkpoint)
    assert found.training.startswith("AdamWeightDecay at step 10, ")
    assert inspect(tmp_path / "out").training == found.training
    same = diff(steps.checkpoint, tmp_path / "out")
    assert same.same()
    assert any(row.name == "pooler.kernel/v" for row in same.rows)

    def move(arrays):
        arrays[f"{WEIGHT}/AdamWeightDecayOptimizer"][0, 0] += 1
        arrays["global_step"] += 1

    other = diff(changed(tmp_path / "moved", steps, move), tmp_path / "out")
    assert not other.same()
    assert {row.name for row in other.rows if row.status == "different"} == {
        "encoder.layer.0.output.dense.kernel/m", "global_step"}  # fmt: skip


def test_verify_sees_a_changed_slot(tmp_path):
    steps, out = steps_of(MINI), tmp_path / "out"
    convert(steps.checkpoint, out, settings())
    assert verify(out).passed
    file = out / "flax/training.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = verify(out)
    assert {check.name for check in result.checks if not check.passed} == {"flax files", "flax training"}


def without_flags(values):
    for name in ("learning_rate", "num_train_steps"):
        del values[name]


def stray(arrays):
    arrays["other/kernel/AdamWeightDecayOptimizer"] = np.ones(3, np.float32)


def of_another_shape(arrays):
    arrays[f"{WEIGHT}/AdamWeightDecayOptimizer"] = np.ones((2, 2), np.float32)


def not_a_number(arrays):
    arrays[f"{WEIGHT}/AdamWeightDecayOptimizer"][0, 0] = np.nan


def negative(arrays):
    arrays[f"{WEIGHT}/AdamWeightDecayOptimizer_1"][0, 0] = -1


def two_optimizers(arrays):
    arrays |= {f"{WEIGHT}/Adam": arrays[WEIGHT], f"{WEIGHT}/Adam_1": arrays[WEIGHT]}


def no_step(arrays):
    del arrays["global_step"]


def half(arrays):
    del arrays[f"{WEIGHT}/AdamWeightDecayOptimizer_1"]


def one_lacks(arrays):
    half(arrays)
    del arrays[f"{WEIGHT}/AdamWeightDecayOptimizer"]


def without_slots(arrays):
    for name in [name for name in arrays if "Optimizer" in name]:
        del arrays[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (stray, "slots without weights: other/kernel/AdamWeightDecayOptimizer"),
        (of_another_shape, r"AdamWeightDecayOptimizer is \[2, 2\], expected \[64, 16\]|is \[2, 2\], expected"),
        (not_a_number, "output.dense.kernel/m holds NaN"),
        (negative, "holds -1, but a mean of squares is never negative"),
        (two_optimizers, "slots of Adam and of AdamWeightDecay"),
        (no_step, "no global_step"),
        (half, "has some of its slots, but not v"),
        (one_lacks, "output.dense.kernel has no slots, though"),
        (without_slots, "holds no optimizer's slots.*--fresh-optimizer"),
    ],
)
def test_a_state_that_cannot_go_on_is_refused(change, message, tmp_path):
    checkpoint = changed(tmp_path / "source", steps_of(MINI), change)
    with pytest.raises(ValueError, match=message):
        convert(checkpoint, tmp_path / "out", settings())
    assert not (tmp_path / "out").exists()


def test_flags_without_a_schedule_ask_for_it(tmp_path):
    checkpoint = changed(tmp_path / "source", steps_of(MINI), flags=without_flags)
    with pytest.raises(ValueError, match="give --learning-rate, --num-train-steps"):
        convert(checkpoint, tmp_path / "out", settings())
    done = CliRunner().invoke(main, ["convert", str(checkpoint), str(tmp_path / "out"), "--optimizer",
                                     "--learning-rate", "0.002", "--num-train-steps", "40"])  # fmt: skip
    assert done.exit_code == 0, done.output
    state = json.loads((tmp_path / "out/torch/training.json").read_text())
    assert (state["training"]["learning_rate"], state["training"]["num_train_steps"]) == (0.002, 40)
    assert state["training"]["num_warmup_steps"] == steps_of(MINI).flags["num_warmup_steps"]


def test_a_fresh_state_is_empty(tmp_path):
    checkpoint = changed(tmp_path / "source", steps_of(MINI), without_slots)
    convert(checkpoint, tmp_path / "out", settings(fresh=True))
    slots = load_file(tmp_path / "out/torch/training.safetensors")
    assert len(slots) == 2 * len(steps_of(MINI).weights)
    assert not any(x.any() for x in slots.values())
    state = json.loads((tmp_path / "out/torch/training.json").read_text())
    assert (state["global_step"], state["training"]["optimizer"]) == (0, "AdamWeightDecay")


def test_the_slots_names_count_and_not_the_flag(tmp_path):
    """The original trains with Adam where it cannot import Adafactor, and its flags go on to say Adafactor."""
    checkpoint = changed(tmp_path / "source", steps_of(MINI), flags=lambda values: values.update(optimizer="Adafactor"))
    report = convert(checkpoint, tmp_path / "out", settings())
    assert json.loads((tmp_path / "out/torch/training.json").read_text())["training"]["optimizer"] == "AdamWeightDecay"
    assert any("the flags name Adafactor, but the slots are AdamWeightDecay's" in note for note in report.plan.notes)


def test_slots_say_whether_the_next_sentence_trains(tmp_path):
    checkpoint = changed(tmp_path / "source", steps_of(MINI), flags=lambda values: values.update(use_nsp=False))
    report = convert(checkpoint, tmp_path / "out", settings())
    assert report.plan.training.state.training.use_nsp
    assert any("use_nsp is False in the flags, but the slots say True" in note for note in report.plan.notes)


@pytest.mark.parametrize(("options", "message"), [
    (["--optimizer", "--dtype", "bfloat16"], "--dtype bfloat16"),
    (["--optimizer", "--max-position-embeddings", "512"], "--max-position-embeddings"),
    (["--learning-rate", "0.1"], "of use with --optimizer"),
    (["--rebuild-factors"], "of use with --optimizer"),
])  # fmt: skip
def test_options_that_do_not_go_together(options, message, tmp_path):
    done = CliRunner().invoke(main, ["convert", str(steps_of(MINI).checkpoint), str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()


def factors_of_three_axes(arrays):
    """Adafactor's state of the same weights, with an axis for each attention head."""
    rng = np.random.default_rng(0)
    for name in [name for name in arrays if "Adam" in name]:
        del arrays[name]
    heads = 2
    for name in [name for name in arrays if name != "global_step"]:
        shape, x = arrays[name].shape, arrays[name]
        if "/attention/self/" in name:
            shape = (*shape[:-1], heads, shape[-1] // heads)
        elif name.endswith("attention/output/dense/kernel"):
            shape = (heads, shape[0] // heads, shape[1])
        arrays[name] = x.reshape(shape)
        squares = rng.uniform(1, 2, shape).astype(np.float32)
        if len(shape) > 1:
            arrays |= {f"{name}/Adafactor": squares.mean(-1), f"{name}/Adafactor_1": squares.mean(-2)}
        else:
            arrays[f"{name}/Adafactor"] = squares


def test_factors_of_kernels_with_three_axes_are_refused_or_rebuilt(tmp_path):
    checkpoint = changed(tmp_path / "source", steps_of(MINI), factors_of_three_axes)
    with pytest.raises(ValueError, match="attention.self.query.kernel.*--rebuild-factors"):
        convert(checkpoint, tmp_path / "out", settings())
    report = convert(checkpoint, tmp_path / "out", settings(rebuild=True))
    how = {slot.slot.name: slot.how for slot in report.plan.training.slots}
    name = "encoder.layer.0.attention.self.query.kernel"
    assert (how[f"{name}/row"], how["pooler.kernel/row"]) == ("rebuilt", "converted")
    original = arrays_of(checkpoint)
    rows = original["bert/encoder/layer_0/attention/self/query/kernel/Adafactor"]
    slots = load_file(tmp_path / "out/flax/training.safetensors")
    np.testing.assert_allclose(slots[f"{name}/row"], rows.mean(-1), rtol=1e-6)  # means of means are exact
    np.testing.assert_allclose(slots[f"{name}/column"], np.full(16, 1.5), rtol=0.2)
    assert slots["encoder.layer.0.attention.self.query.bias/v"].shape == (16,)
    output = "encoder.layer.0.attention.output.dense.kernel/row"  # whose rows are the same numbers
    exact = original["bert/encoder/layer_0/attention/output/dense/kernel/Adafactor"]
    np.testing.assert_allclose(slots[output], exact.reshape(-1), rtol=1e-6)
    with pytest.raises(ValueError, match="--tf-names bert: Adafactor's factors"):
        convert(tmp_path / "out", tmp_path / "back", settings(("tf",), tf_names="bert"))
