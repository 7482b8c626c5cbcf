"""Whatever was asked for and not done is an error, a failure, or a line that says why."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

import parity.run.run
import parity.run.walk
from bigbird_port.cli import main
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.family import Head, Tap
from bigbird_port.families.losses import LossTerm
from parity.faults.setup import make_setup, make_witness, own_inputs, walk
from parity.given.inputs import select_inputs
from parity.run.compare import Scene
from parity.run.conditions import Options
from parity.run.results import Part
from parity.run.run import run_parity
from parity.witnesses.witness import Setting
from tests.conftest import GOLDEN

SMALL = ("--length", "12", "--against", "torch,reference", "--no-local", "--no-calls")


@pytest.fixture(scope="module")
def out(converted):
    return converted("mini-pretrain")


def run(*arguments):
    """Run a command of parity; conditions, which a plain run has, are left out."""
    alone = [] if arguments[0] in ("faults", "bisect") else ["--no-conditions"]
    return CliRunner().invoke(main, ["parity", *map(str, arguments), *alone])


def kinds(result, head):
    return {row.error for row in result.rows if head in row.heads}


# Gradients and decoding.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "base", "--gradients"), "--gradients has nothing to compare: base: the base model has no loss"),
        (("--head", "masked-lm", "--decoding"), "--decoding has nothing to compare: masked-lm: only causal-lm is run"),
        (("--head", "causal-lm", "--gradients", "--length", "1"), "a single token has no next one"),
        (("--gradients", "--against", "reference,transformers"), "--gradients compares torch or flax"),
    ],
)
def test_what_no_head_and_no_witness_can_do_is_refused(out, arguments, message):
    result = run(out, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_head_without_a_loss_gets_a_line_and_the_others_gradients(out):
    result = run(out, "--head", "base", "--head", "masked-lm", "--gradients", *SMALL)
    assert result.exit_code == 0, result.output
    assert "base: not compared: gradients (the base model has no loss)" in result.output
    assert "\ngrad.layer.0.query " in result.output
    assert "grad." not in result.output.partition("base: taps")[2].partition("masked-lm: taps")[0]


def test_heads_that_do_not_decode_get_one_line(out):
    result = run(out, "--head", "base", "--head", "qa", "--head", "causal-lm", "--decoding", *SMALL)
    assert result.exit_code == 0, result.output
    assert "base, qa: not compared: decoding (only causal-lm is run token by token)" in result.output
    assert " decoding " in result.output


def test_decoding_says_how_far_it_went(out):
    options = Options(length=65, witnesses=("torch", "reference"), decoding=True, local=False, called=False)
    result = run_parity(out, ["causal-lm"], options)
    assert result.passed
    assert result.not_compared["causal-lm"] == ["decoding beyond 64 tokens (each step sees all before it)"]


@pytest.mark.parametrize(("function", "part"), [("compare_gradients", "gradients"), ("compare_decoding", "decoding")])
def test_a_part_that_compares_nothing_in_silence_fails(out, monkeypatch, function, part):
    options = Options(
        length=12, witnesses=("torch", "reference"), local=False, called=False, losses=False, **{part: True}
    )
    assert run_parity(out, ["causal-lm"], options).passed
    monkeypatch.setattr(parity.run.run, function, lambda *arguments: [])
    result = run_parity(out, ["causal-lm"], options)
    assert not result.passed
    assert [check.name for check in result.checks if not check.passed] == [f"{part} of causal-lm, 2x12"]


def test_a_loss_that_is_not_compared_fails_or_says_why(out, monkeypatch):
    options = Options(length=1, witnesses=("torch", "reference"), local=False, called=False)
    result = run_parity(out, ["causal-lm", "base"], options)
    assert result.passed
    assert result.not_compared == {"causal-lm": ["loss (a single token has no next one)"]}
    monkeypatch.setattr(parity.run.walk.Walk, "_losses", lambda *arguments: None)
    result = run_parity(out, ["qa"], replace(options, length=12))
    assert [check.name for check in result.checks if not check.passed] == ["loss of qa, 2x12"]


def test_one_witness_alone_has_no_loss_to_compare(out):
    case = GOLDEN["mini-pretrain"].cases[1]
    result = run(out, "--golden", case, "--against", "torch", "--no-calls")
    assert result.exit_code == 0, result.output
    assert "pretraining: not compared: loss (only torch computes one)" in result.output


def test_a_head_has_losses_or_says_why_not():
    with pytest.raises(ValueError, match="the head toy has 0 losses"):
        Head("toy", "Toy", (), (), "none")
    with pytest.raises(ValueError, match="the head toy has 1 losses"):
        Head("toy", "Toy", (), (LossTerm("mse", ("x",)),), "none", no_loss="it has none")


# Axes.


@pytest.mark.parametrize("length", [1, 2, 3, 16])
@pytest.mark.parametrize("head", ["pretraining", "multiple-choice", "qa", "token-classification"])
def test_lengths_that_equal_another_axis(out, head, length):
    """2: classes and choices; 16: the hidden size, which is also the batch's shape of a pooler's output."""
    options = Options(length=length, witnesses=("torch", "reference"), local=False, seed=1)
    result = run_parity(out, [head], options)
    assert result.passed, [row.place for row in result.failures]


@pytest.mark.parametrize("hidden", [4, 9])
def test_a_pooler_is_compared_whole_whatever_the_length(hidden):
    """Where the length equals the hidden size, a mask of positions would fit the pooler's output, and hide a part."""
    mask = np.ones((2, hidden), bool)
    mask[1, -1] = False
    scene = Scene("base", "2x4", {"torch": Setting(), "reference": Setting("float64")}, mask, 1)
    right = np.random.default_rng(0).standard_normal((2, hidden))
    wrong = right.copy()
    wrong[1, -1] += 1
    assert scene.row(("torch", "reference"), "called", "pooler_output", (right, right)).passed
    assert not scene.row(("torch", "reference"), "called", "pooler_output", (wrong, right)).passed
    positions = right[..., None]
    padded = scene.row(("torch", "reference"), "called", "last_hidden_state", (wrong[..., None], positions))
    assert padded.passed  # a padded position holds what it likes


@pytest.mark.parametrize("part", [None, Part(attention_head=1)])
def test_padding_of_one_attention_head_does_not_count_either(part):
    """What transformers computes for padding is its own, in a head as in all of them."""
    mask = np.array([[True, True, False]])
    scene = Scene("base", "1x3", {"transformers": Setting(), "reference": Setting("float64")}, mask, 1)
    right = np.random.default_rng(0).standard_normal((1, 3, 8) if part else (1, 3, 2, 8))
    for at, passes in ((2, True), (1, False)):
        wrong = right.copy()
        wrong[:, at] += 1
        row = scene.row(
            ("transformers", "reference"), "accumulated", "layer.0.context", (wrong, right), part, scale=1.0
        )
        assert row.passed == passes


def test_a_tap_without_axes_is_refused():
    scene = Scene("base", "2x4", {"torch": Setting(), "reference": Setting()}, np.ones((2, 4), bool), 1)
    with pytest.raises(ValueError, match="base has no tap start_logits"):
        scene.where(("torch", "reference"), "called", "start_logits", np.ones((2, 4)))


def test_every_tap_of_every_head_has_as_many_axes_as_its_table_says():
    for head in BIGBIRD.heads:
        setup = make_setup("short", head)
        witness = make_witness("torch", setup)
        taps, stream = witness.start(setup.inputs)
        for step in setup.config.family.steps(setup.config)[1:-1]:
            more, stream = witness.step(step, stream)
            taps |= more
        taps |= witness.finish(stream)
        sizes = {"batch": {2, 4}, "length": {40}, "hidden": {32}, "inner": {48}, "heads": {4}, "size": {8}}
        sizes |= {"vocabulary": {97}, "labels": {3}, "choices": {2}, "classes": {2}, "sides": {2}}
        for name, x in taps.items():
            place = BIGBIRD.place(name, head)
            assert place, name
            assert len(x.shape) == len(place.tap.names), name
            assert all(n in sizes[axis] for n, axis in zip(x.shape, place.tap.names, strict=True)), name


def test_places_of_taps():
    place = BIGBIRD.place("grad.layer.12.context", "qa")
    assert place
    assert (place.layer, place.module) == (12, "encoder.layer.12.attention.self")
    assert place.sources == ("layer.12.query", "layer.12.key", "layer.12.value")
    assert BIGBIRD.place("logits", "token-classification").tap.axes == "batch length labels"
    assert BIGBIRD.place("encoder.layer.0.output.dense.kernel") is None
    assert isinstance(BIGBIRD.place("rand_attn.3").tap, Tap)


# Inputs.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--inputs", "x.json", "--batch", "2"), "--inputs brings its own inputs: leave out --batch"),
        (("--text", "x.txt", "--batch", "3"), "--text brings its own inputs: leave out --batch"),
        (("--golden", "x.safetensors", "--adversarial"), "--golden brings its own inputs: leave out --adversarial"),
        (("--batches", "1,2", "--batch", "2"), "--batches and --batch exclude each other"),
        (("--adversarial", "--batch", "3"), "--adversarial and --batch exclude each other"),
        (("--adversarial", "--batches", "3"), "--adversarial and --batches exclude each other"),
        (("--lengths", "8,9", "--length", "8"), "--lengths and --length exclude each other"),
        (("--torch-device", "cpu", "--against", "flax,reference"), "--torch-device is the device of"),
        (("--flax-device", "cpu", "--against", "torch,reference"), "--flax-device is the device of"),
        (("--with-faults", "--mesh", "data=2", "--faults", "x.json"), "--with-faults makes the detection matrix"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(out, arguments, message):
    result = run(out, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(inputs={"input_ids": np.ones((1, 4), np.int32)}, lengths=(8, 9)), "leave out lengths"),
        (Options(inputs={"input_ids": np.ones((1, 4), np.int32)}, batch=3), "leave out batch"),
        (Options(adversarial=True, batches=(1, 2)), "leave out batches"),
    ],
)
def test_the_same_from_python(out, options, message):
    with pytest.raises(ValueError, match=message):
        run_parity(out, ["base"], options)


IDS = np.ones((2, 4), np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input_ids": IDS, "attention_maks": IDS}, "attention_maks is no input of a model: was attention_mask meant"),
        ({"input_ids": IDS[0]}, r"input_ids has shape \[4\], expected \[batch, length\]"),
        ({"input_ids": IDS[:, None]}, "expected"),
        ({"input_ids": IDS, "token_type_ids": IDS[:, :3]}, r"token_type_ids has shape \[2, 3\]"),
        ({"input_ids": IDS, "question_lengths": IDS}, "question_lengths has shape"),
    ],
)
def test_inputs_that_would_be_passed_over_or_do_not_fit(arrays, message):
    with pytest.raises(ValueError, match=message):
        select_inputs(arrays, "x.json")
    said: list[str] = []
    select_inputs({"input_ids": IDS, "rows": IDS}, "x.json", said.append)
    assert said == ["x.json: rows is no input of a model, and is passed over"]
    masks = {"attention_mask": np.ones((2, 4, 4), np.int64), "question_lengths": np.array([1, 2])}
    assert select_inputs({"input_ids": IDS, "position_ids": IDS[:1]} | masks, "x.json").keys() >= masks.keys()


def test_question_lengths_that_no_head_takes(out, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"input_ids": [[65, 5, 66, 7, 8, 66]], "question_lengths": [3]}))
    result = run(out, "--inputs", tmp_path / "mine.json", "--head", "base", *SMALL[2:])
    assert result.exit_code == 0, result.output
    assert "base: not compared: question_lengths (this head takes none)" in result.output


@pytest.mark.parametrize(
    ("head", "overrides", "why"),
    [
        ("causal-lm", {"random_blocks": "transformers"}, "--random-blocks (a decoder attends to every token before)"),
        ("base", {"max_encoder_length": 12}, "--max-encoder-length (full attention stands in for it at 12 tokens)"),
        ("base", {"attention_type": "block_sparse"}, None),  # the demo's pattern is that of more tokens
        ("base", {"attention_type": "original_full"}, None),
        (
            "base",
            {"attention_type": "original_full", "max_encoder_length": 12},
            "--max-encoder-length (the model's attention_type is original_full)",
        ),
    ],
)
def test_a_pattern_that_is_asked_for_and_not_used(out, head, overrides, why):
    options = Options(
        length=12, witnesses=("torch", "reference"), overrides=overrides, local=False, called=False, losses=False
    )
    result = run_parity(out, [head], options)
    assert result.passed
    assert result.not_compared.get(head, []) == ([f"the attention pattern of {why}"] if why else [])


def test_a_model_with_one_token_type_answers_questions():
    """The context's type, 1, is not there: all tokens have type 0."""
    setup = make_setup("short", "qa")
    config = setup.config.replace(type_vocab_size=1)
    name = "embeddings.token_type_embeddings.embedding"
    setup = replace(setup, config=config, weights=setup.weights | {name: setup.weights[name][:1]})
    setup = replace(setup, inputs=own_inputs(config, "qa", 2, 40, 0))
    for framework in ("torch", "flax"):
        witness = make_witness(framework, setup)
        from parity.faults.setup import make_reference

        result = walk(setup, {"reference": make_reference(setup), framework: witness})
        assert result.passed, [row.place for row in result.failures]


# What is kept, and which tolerances were used.


def test_nothing_kept_is_said(out, tmp_path):
    result = run(out, "--head", "base", *SMALL, "--keep", tmp_path / "kept")
    assert result.exit_code == 0, result.output
    assert f"--keep {tmp_path / 'kept'}: no tensors were kept, because nothing failed" in result.output


def test_tolerances_of_which_none_is_used(out, tmp_path):
    from parity.measure.tolerances import SHIPPED

    values = json.loads(SHIPPED.read_text())
    for name, device in (("other", "tpu"), ("own", "cpu")):
        entries = [row | {"device": device} for row in values["entries"] if row["device"] == "cpu"]
        (tmp_path / f"{name}.json").write_text(json.dumps(values | {"entries": entries, "unjudged": {}}))
    other = run(out, "--head", "base", *SMALL, "--tolerances", tmp_path / "other.json")
    assert "none of its entries is of what was compared" in other.output
    own = run(out, "--head", "base", *SMALL, "--tolerances", tmp_path / "own.json")
    assert own.exit_code == 0
    assert "none of its entries" not in own.output


# A golden case and heads that it does not know.


@pytest.mark.parametrize("head", ["token-classification", "sequence-classification"])
def test_scores_of_other_heads_are_not_taken_for_words(out, head):
    case = GOLDEN["mini-pretrain"].cases[1]
    result = run(out, "--golden", case, "--head", head, "--against", "torch", "--no-calls")
    assert result.exit_code == 0, result.output
    assert "not compared, without a counterpart: mlm_log_probs" in result.output


def test_a_case_judges_what_another_head_computes_as_well(out):
    case = GOLDEN["mini-pretrain"].cases[1]
    result = run_parity(out, ["masked-lm", "base"], Options(golden=_golden(case), witnesses=("torch",), called=False))
    assert result.passed
    taps = {head: {row.tap for row in result.rows if head == row.head} for head in ("masked-lm", "base")}
    assert taps["masked-lm"] >= {"mlm_log_probs", "mlm_loss"}
    assert "pooler_output" in taps["base"]


def test_a_case_that_is_wrong_there_fails(out, tmp_path):
    tensors = safetensors.numpy.load_file(GOLDEN["mini-pretrain"].cases[1])
    tensors["mlm_log_probs"] = tensors["mlm_log_probs"] + 0.01
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"max_encoder_length": "528"})
    result = run_parity(out, ["masked-lm"], Options(golden=_golden(path), witnesses=("torch",), called=False))
    assert {row.tap for row in result.failures} == {"mlm_log_probs"}


def _golden(path):
    from parity.given.golden import read_golden

    return read_golden(path)


# Faults and bisect.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("faults", "--list", "--seed", "1"), "--list has no use for --seed"),
        (("faults", "--clean-seeds", "2", "--json", "x"), "--clean-seeds has no use for --json"),
        (("faults", "--clean-seeds", "2", "--fault", "exact-gelu"), "--clean-seeds has no use for --fault"),
        (("faults", "--fault", "spans-swapped", "--head", "base"), "spans-swapped touches qa"),
    ],
)
def test_faults_that_would_not_be_injected_are_refused(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_bisect_refuses_a_fault_that_does_not_touch_the_head(out):
    result = run("bisect", out, "--head", "base", "--fault", "spans-swapped")
    assert result.exit_code == 2
    assert "--fault spans-swapped does not touch base: choose --head from qa" in result.output


def test_a_proof_without_any_fault_is_none():
    from parity.faults.matrix import Clean, Detection, Proof

    clean = Clean("short", "base", "torch", 0, 10, 0.5)
    assert not Proof("torch", clean=[clean]).passed
    assert Proof("torch", [Detection("x", "torch", "base", True, True)], [clean]).passed


def test_the_reference_knows_one_type():
    from parity.reference.inputs import complete_inputs

    ids = np.array([[5, 6, 66, 7]], np.int32)
    for types, expected in ((1, [[0, 0, 0, 0]]), (2, [[0, 0, 0, 1]])):
        given = complete_inputs(BigBirdConfig(vocab_size=80, type_vocab_size=types), "qa", {"input_ids": ids})
        assert given.token_type_ids.tolist() == expected


# One row a layer and tap.


def test_layers_are_printed_for_every_head_with_what_each_is_off(out):
    result = run(out, "--head", "base", "--head", "qa", *SMALL, "--layers")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    rows = [line for line in lines if line[:1] in (["base"], ["qa"]) and line[-1:] == ["pass"] and "1x12" not in line]
    cells = {(line[0], line[1], line[2]): line for line in rows}
    for head in ("base", "qa"):
        for i in ("0", "1"):
            parts = ("query", "key", "value", "context", "attention_output", "intermediate", "output")
            assert all((head, i, f"layer.{i}.{part}") in cells for part in parts)
        assert (head, "embeddings", "embeddings") in cells
    assert ("qa", "head", "start_logits") in cells
    figures = cells["qa", "0", "layer.0.context"][-4:-1]
    assert 0 < float(figures[0]) < 1e-5
    assert 0 < float(figures[1]) < float(figures[2])
    assert "shape" not in result.output
    assert "PASSED" in result.output


def test_a_layer_that_is_off_fails_in_the_table_of_layers(failing):
    from parity.reports.layers import layer_rows

    found = {(row.head, row.stage, row.tap): row for row in layer_rows(failing.result)}
    assert not found["masked-lm", 1, "layer.1.context"].passed
    assert found["masked-lm", 0, "layer.0.context"].passed
    stages = [row.stage for row in layer_rows(failing.result) if row.head == "masked-lm"]
    assert stages == sorted(stages, key=lambda stage: {"embeddings": -1, "head": 9}.get(stage, stage))
