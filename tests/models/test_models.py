"""What both frameworks promise beyond numbers: loading, shapes, errors, no state."""

import ast
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from tests.conftest import ROOT

FRAMEWORKS = ("torch", "flax")
BY_FRAMEWORK = pytest.mark.parametrize("framework", FRAMEWORKS)
TINY = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=640,
    block_size=16,
    initializer_range=0.3,
)


def model_class(framework, head):
    if framework == "torch":
        return getattr(models_torch, HEADS[head].class_name)
    return getattr(models_flax, HEADS[head].flax_class_name)


def call(framework, model, ids, **arguments):
    """Run a model on arrays and return its output with arrays in it."""
    if framework == "flax":
        return model(ids, **{k: np.asarray(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()})
    with torch.no_grad():
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        return model(torch.from_numpy(ids), **tensors)


def random_ids(batch, length, seed=0):
    return np.random.default_rng(seed).integers(1, 90, (batch, length)).astype(np.int32)


@BY_FRAMEWORK
def test_padding_is_where_the_ids_say_so(framework):
    model = model_class(framework, "base").from_config(TINY)
    ids = random_ids(2, 600)
    ids[1, 300:] = 0
    told = call(framework, model, ids, attention_mask=(ids != 0).astype(np.int32)).last_hidden_state
    np.testing.assert_array_equal(np.asarray(call(framework, model, ids).last_hidden_state), np.asarray(told))


@BY_FRAMEWORK
@pytest.mark.parametrize("length", [520, 600, 639])
@pytest.mark.quick("520-torch", "600-torch", "639-torch", "639-flax")
def test_lengths_that_are_no_multiple_of_the_block_are_padded_inside(framework, length):
    """The outputs are cut back, and equal those of the same text padded by the caller."""
    model = model_class(framework, "base").from_config(TINY.replace(max_encoder_length=640))
    ids = random_ids(1, length)
    output = call(framework, model, ids, output_hidden_states=True)
    assert output.last_hidden_state.shape == (1, length, 16)
    assert [state.shape for state in output.hidden_states] == [(1, length, 16)] * 3
    padded = np.pad(ids, ((0, 0), (0, 640 - length)))
    whole = np.asarray(call(framework, model, padded).last_hidden_state)[:, :length]
    np.testing.assert_allclose(np.asarray(output.last_hidden_state), whole, rtol=0, atol=2e-6)


@BY_FRAMEWORK
def test_a_text_does_not_depend_on_its_batch(framework):
    """With max_encoder_length set, as in the original."""
    model = model_class(framework, "base").from_config(TINY.replace(max_encoder_length=640))
    short = random_ids(1, 100, seed=1)
    batch = random_ids(3, 630)
    batch[1] = 0
    batch[1, :100] = short
    alone = np.asarray(call(framework, model, short).last_hidden_state)
    together = np.asarray(call(framework, model, batch).last_hidden_state)[1:2, :100]
    np.testing.assert_allclose(alone, together, rtol=0, atol=2e-6)


@BY_FRAMEWORK
def test_results_do_not_depend_on_what_ran_before(framework):
    """transformers switches a model to full attention for good after one short batch."""
    model, long = model_class(framework, "base").from_config(TINY), random_ids(1, 600)
    first = np.asarray(call(framework, model, long).last_hidden_state)
    call(framework, model, random_ids(1, 20))
    np.testing.assert_array_equal(np.asarray(call(framework, model, long).last_hidden_state), first)


@BY_FRAMEWORK
def test_a_causal_model_does_not_look_ahead(framework):
    model = model_class(framework, "causal-lm").from_config(TINY)
    assert (model.config.is_decoder, model.config.attention_type) == (True, "original_full")
    ids = random_ids(1, 50)
    first = np.asarray(call(framework, model, ids).logits)
    ids[0, 30] = 1 + ids[0, 30] % 80
    second = np.asarray(call(framework, model, ids).logits)
    np.testing.assert_allclose(second[:, :30], first[:, :30], rtol=0, atol=2e-6)
    assert (np.abs(second[:, 30:] - first[:, 30:]).max(-1) > 1e-3).all()


@BY_FRAMEWORK
def test_question_mask_spares_cls_and_hits_the_question(framework):
    config = TINY.replace(sep_token_id=66)
    model = model_class(framework, "qa").from_config(config)
    ids = random_ids(2, 40)
    ids[ids == 66] = 5
    ids[0, 9] = ids[0, 30] = ids[1, 4] = 66
    for output in (
        call(framework, model, ids),
        call(framework, model, ids, question_lengths=np.array([10, 5], np.int32)),
        call(framework, model, ids, question_lengths=np.array([[10], [5]], np.int32)),
    ):
        for logits in (np.asarray(output.start_logits), np.asarray(output.end_logits)):
            masked = logits < -1e5
            assert masked.sum() == 9 + 4
            assert masked[0, 1:10].all()
            assert masked[1, 1:5].all()


@BY_FRAMEWORK
def test_question_answering_derives_its_token_types(framework):
    model = model_class(framework, "qa").from_config(TINY)
    ids = random_ids(1, 30)
    ids[ids == 66] = 5
    ids[0, 7] = 66
    types = (np.arange(30) >= 8).astype(np.int32)[None]
    np.testing.assert_array_equal(
        np.asarray(call(framework, model, ids).start_logits),
        np.asarray(call(framework, model, ids, token_type_ids=types).start_logits),
    )


@BY_FRAMEWORK
def test_position_ids_and_token_types_matter(framework):
    model, ids = model_class(framework, "base").from_config(TINY), random_ids(1, 20)
    first = np.asarray(call(framework, model, ids).last_hidden_state)
    shifted = call(framework, model, ids, position_ids=np.arange(1, 21, dtype=np.int32)[None]).last_hidden_state
    typed = call(framework, model, ids, token_type_ids=np.ones((1, 20), np.int32)).last_hidden_state
    for other in (shifted, typed):
        assert np.abs(np.asarray(other) - first).max() > 1e-2


@BY_FRAMEWORK
@pytest.mark.parametrize(
    ("ids", "arguments", "message"),
    [
        (np.ones(5, np.int32), {}, r"input_ids has shape \[5\], expected \[batch, length\]"),
        (np.ones((0, 5), np.int32), {}, r"input_ids has shape \[0, 5\]"),
        (np.ones((1, 641), np.int32), {}, "641 tokens long, but there are 640 position embeddings"),
        (
            np.ones((1, 5), np.int32),
            {"attention_mask": np.ones((1, 6), np.int32)},
            r"attention_mask has shape \[1, 6\]",
        ),
        (np.ones((2, 5), np.int32), {"token_type_ids": np.ones((3, 5), np.int32)}, "token_type_ids has shape"),
    ],
)
def test_wrong_inputs_are_refused(framework, ids, arguments, message):
    model = model_class(framework, "base").from_config(TINY)
    with pytest.raises(ValueError, match=message):
        call(framework, model, ids, **arguments)


@BY_FRAMEWORK
def test_a_choice_needs_three_axes(framework):
    model = model_class(framework, "multiple-choice").from_config(TINY)
    with pytest.raises(ValueError, match="expected \\[batch, choices, length\\]"):
        call(framework, model, np.ones((2, 5), np.int32))
    assert call(framework, model, np.ones((2, 3, 5), np.int32)).logits.shape == (2, 3)


@BY_FRAMEWORK
def test_a_length_of_one_works(framework):
    model = model_class(framework, "base").from_config(TINY)
    assert call(framework, model, np.ones((1, 1), np.int32)).last_hidden_state.shape == (1, 1, 16)


@BY_FRAMEWORK
def test_absent_weights_are_an_error_unless_a_seed_is_given(framework, converted):
    out = converted("mini-pretrain")
    with pytest.raises(ValueError, match="no weights for qa_classifier.*init_seed=0"):
        model_class(framework, "qa").from_pretrained(out)
    model = model_class(framework, "qa").from_pretrained(out, init_seed=0)
    assert len(model.initialised) == 8


@BY_FRAMEWORK
def test_overrides_change_the_configuration(framework, converted):
    model = model_class(framework, "base").from_pretrained(converted("mini-pretrain"), max_encoder_length=1024)
    assert model.config.max_encoder_length == 1024
    with pytest.raises(ValueError, match="no argument 'max_length': did you mean 'max_encoder_length'"):
        model_class(framework, "base").from_pretrained(converted("mini-pretrain"), max_length=3)
    with pytest.raises(ValueError, match=r"embeddings\.word_embeddings\.embedding is \[80, 16\]"):
        model_class(framework, "base").from_pretrained(converted("mini-pretrain"), vocab_size=100)


@BY_FRAMEWORK
def test_folders_that_do_not_hold_a_model_are_named(framework, tmp_path, converted):
    with pytest.raises(ValueError, match="there is no such folder"):
        model_class(framework, "base").from_pretrained(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"config\.json"):
        model_class(framework, "base").from_pretrained(tmp_path)
    values = json.loads((converted("mini-pretrain") / framework / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="cannot be read"):
        model_class(framework, "base").from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values | {"architectures": None}))
    with pytest.raises(ValueError, match="architectures is None"):
        model_class(framework, "base").from_pretrained(tmp_path)


def test_dropout_acts_in_training_only():
    ids = random_ids(1, 600)
    model = models_torch.BigBirdModel.from_config(TINY)
    evaluated = call("torch", model, ids).last_hidden_state
    assert not torch.equal(call("torch", model.train(), ids).last_hidden_state, evaluated)
    flax_model = models_flax.FlaxBigBirdModel.from_config(TINY)
    evaluated = flax_model(ids).last_hidden_state
    first = flax_model(ids, train=True, dropout_rng=jax.random.key(0)).last_hidden_state
    again = flax_model(ids, train=True, dropout_rng=jax.random.key(0)).last_hidden_state
    assert (np.asarray(first) == np.asarray(again)).all()
    assert (np.asarray(first) != np.asarray(evaluated)).any()


def test_loaded_torch_weights_train():
    model = models_torch.BigBirdForMaskedLM.from_config(TINY)
    model(torch.from_numpy(random_ids(1, 600))).logits.sum().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused == {"bert.pooler.weight", "bert.pooler.bias"}


def definitions(path: Path) -> list[str]:
    """Names of the classes, public functions and public methods of a file, in order, without what Flax adds."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            names.append(node.name.removeprefix("Flax").removesuffix("Module").replace("Model", ""))
    return names


# Signatures, of which Flax has one; layouts of oneDNN, which XLA chooses by itself, and its products; sizes that
# torch.jit.trace makes tensors of; where the blocks of a row are, which Flax has as arrays; all
# texts at once, over which Flax maps.
TORCH_ONLY_FILES = {
    *("arguments.py", "few_rows.py", "inference.py", "host.py", "bigbird/tracing.py"),
    *(f"attention/{name}.py" for name in ("batched", "kept", "onednn", "open_batch", "rows")),
}
# Positions on several devices, which torch does not offer here; what is compiled; parameters that two parts share, and
# modules with their parameters, which torch's hold; embeddings that cast what they read; Flax's newer kind of
# module; what a program is lowered for.
FLAX_ONLY_FILES = {
    "attention/kernel_layout.py",
    "attention/sequence.py",
    "bigbird/holders.py",
    "embed.py",
    "kinds.py",
    "nnx.py",
    "pegasus/coupled.py",
    "pegasus/holders.py",
    "target.py",
}
# JAX places arrays, torch wraps modules; tensors are no arrays; a gather is made of other steps; kernels are Pallas's
# and Triton's; an optimizer holds its
# state, a transformation hands it on; torch's processes hold parts of one batch, JAX's one process all of them.
OTHER_NAMES = {
    "sharding.py",
    "pretrained/files.py",
    "attention/plain.py",
    "attention/gathering.py",
    "attention/gradient.py",
    *(f"attention/{name}.py" for name in ("kernels", "kernel_backward", "kernel_forward")),
    "training/devices.py",
    "training/optimizers.py",
    "training/state.py",
}


def files_of(framework: str) -> set[str]:
    folder = ROOT / f"models_{framework}"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


@pytest.mark.parametrize("file", sorted(files_of("torch") - TORCH_ONLY_FILES - OTHER_NAMES))
def test_twins_have_the_same_names_in_the_same_order(file):
    ours, theirs = definitions(ROOT / "models_torch" / file), definitions(ROOT / "models_flax" / file)
    assert theirs == ours


def test_twins_have_the_same_files():
    assert files_of("torch") - TORCH_ONLY_FILES == files_of("flax") - FLAX_ONLY_FILES


def test_the_holders_are_the_eight_models():
    names = [HEADS[head].class_name.replace("Model", "") for head in HEADS]
    assert definitions(ROOT / "models_flax/bigbird/holders.py") == names
