"""BigBird-Pegasus checkpoints through every source and target and back, and what is refused of them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.source import open_source
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.verify import verify
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from bigbird_port.tokenizers import BigBirdPegasusTokenizer, BigBirdPegasusTokenizerFast
from tests.conftest import GOLDEN, PEGASUS, require
from tests.conversion.matrix import ALL, weights

MINI = GOLDEN["mini-pegasus"].checkpoint
BIAS = "pegasus/{}/layer_0/attention/{}/bias"


def checkpoint_of(folder, changes, flags=None):
    """mini-pegasus with other variables (None: without them), and flags (False: none at all)."""
    store = open_store(MINI).store
    arrays = {name: read(store, name) for name in store.tensors if "Adafactor" not in name and name != "global_step"}
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    folder.mkdir()
    write_arrays(folder, TensorBundleFormat(), arrays)
    if flags is not False:
        values = json.loads((MINI / "summarization.config").read_text()) | (flags or {})
        (folder / "summarization.config").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("name", PEGASUS)
def test_every_golden_folder_makes_the_round_trip(tmp_path, name):
    """From the checkpoint to everything, and from each of these to everything once more, bit for bit."""
    checkpoint = require(GOLDEN[name]).checkpoint
    original = weights(checkpoint)
    assert len(original) == (56 if name == "tiny-coupled" else 66)
    convert(checkpoint, tmp_path / "first", Settings(to=ALL))
    assert verify(tmp_path / "first", checkpoint).passed
    for source in ALL:
        convert(tmp_path / "first" / source, tmp_path / source, Settings(to=ALL))
        for target in ALL:
            assert weights(tmp_path / source / target) == original, (source, target)


def test_variables_are_written_under_the_originals_names_with_either_kernel(tmp_path):
    convert(MINI, tmp_path / "out", Settings(to=("tf",)))
    convert(MINI, tmp_path / "split", Settings(to=("tf",), choices=Choices(tf_names="bert")))
    source, written, split = (open_store(path).store for path in (MINI, tmp_path / "out/tf", tmp_path / "split/tf"))
    own = {name for name in source.tensors if "Adafactor" not in name and name != "global_step"}
    assert set(written.tensors) == set(split.tensors) == own
    for name in own:
        assert read(written, name).tobytes() == read(source, name).tobytes() == read(split, name).tobytes()
    assert split.tensors["pegasus/decoder/layer_0/attention/encdec/query/kernel"].shape == (16, 2, 8)
    assert split.tensors["pegasus/decoder/layer_1/attention/encdec_output/dense/kernel"].shape == (2, 8, 16)
    assert weights(tmp_path / "split/tf") == weights(MINI)


def test_torch_holds_what_transformers_wants_to_find(tmp_path):
    convert(MINI, tmp_path / "out", Settings(to=("torch",)))
    arrays = safetensors.numpy.load_file(tmp_path / "out/torch/model.safetensors")
    tables = [arrays.pop(f"model.{side}.embed_positions.weight") for side in ("encoder", "decoder")]
    assert (tables[0] == tables[1]).all()
    assert len(arrays) == 65
    assert verify(tmp_path / "out").passed
    path = tmp_path / "out/torch/model.safetensors"
    changed = safetensors.numpy.load_file(path)
    changed["model.decoder.embed_positions.weight"] = tables[1] + 1
    safetensors.numpy.save_file(changed, path, metadata={"format": "pt"})
    assert not verify(tmp_path / "out").passed  # the negative control
    with pytest.raises(ValueError, match=r"decoder\.embed_positions\.weight should hold the values of"):
        convert(tmp_path / "out/torch", tmp_path / "again")


def test_biases_that_are_not_read_are_dropped_where_they_are_zero(tmp_path):
    zeros = {BIAS.format("encoder", "self/query"): np.zeros(16, np.float32)}
    zeros[BIAS.format("decoder", "encdec_output/dense")] = np.zeros(16, np.float32)
    report = convert(checkpoint_of(tmp_path / "source", zeros), tmp_path / "out")
    fates = [report.plan.match.fates[name] for name in zeros]
    assert {(fate.what, fate.detail) for fate in fates} == {("ignored", "not read, because use_bias is False")}
    assert weights(tmp_path / "out/torch") == weights(MINI)


def test_biases_that_are_not_read_and_not_zero_are_refused_unless_asked_for(tmp_path):
    name = BIAS.format("encoder", "self/query")
    source = checkpoint_of(tmp_path / "source", {name: np.full(16, 0.5, np.float32)})
    with pytest.raises(ValueError, match=rf"not zero, such as {name} .*--drop-unused-biases"):
        convert(source, tmp_path / "out")
    report = convert(source, tmp_path / "out", Settings(drop_unused_biases=True))
    assert any(name in note and "left out" in note for note in report.plan.notes)
    assert weights(tmp_path / "out/torch") == weights(MINI)


def test_without_flags_the_variables_tell(tmp_path):
    source = checkpoint_of(tmp_path / "source", {}, flags=False)
    with pytest.raises(ValueError, match="give --num-attention-heads"):
        open_source(source)
    found = open_source(source, num_attention_heads=2)
    assert (found.config.encoder_layers, found.config.decoder_layers, found.config.norm_type) == (2, 2, "prenorm")
    assert (found.config.use_bias, found.config.couple_encoder_decoder, found.head) == (
        False,
        False,
        "conditional-generation",
    )
    assert any("inferred from the variables" in note for note in found.notes)
    assert any("taken by default" in note and "activation_function=gelu_new" in note for note in found.notes)


def test_a_coupled_model_is_told_without_flags(tmp_path):
    folder = require(GOLDEN["tiny-coupled"]).checkpoint
    (tmp_path / "source").mkdir()
    for file in folder.glob("model.ckpt*"):
        (tmp_path / "source" / file.name).write_bytes(file.read_bytes())
    config = open_source(tmp_path / "source", num_attention_heads=2).config
    assert (config.couple_encoder_decoder, config.norm_type, config.use_bias) == (True, "postnorm", True)
    assert (config.encoder_layers, config.decoder_layers) == (2, 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"norm_type": "postnorm"},
            "says norm_type=postnorm, but the variables are those of a BigBird-Pegasus model with",
        ),
        ({"couple_encoder_decoder": True}, "couple_encoder_decoder=True, but the variables"),
        ({"num_hidden_layers": 3}, "says encoder_layers=3, decoder_layers=3, but the variables"),
        ({"use_bias": True}, "missing: pegasus/decoder/layer_0/attention/encdec/key/bias"),
    ],
)
def test_flags_that_are_not_the_checkpoints_are_refused(tmp_path, flags, message):
    source = checkpoint_of(tmp_path / "source", {}, flags)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out")


def test_the_configuration_of_a_bigbird_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "big_bird", "hidden_size": 24}))
    with pytest.raises(ValueError, match="of a BigBird model, but the variables are those of a BigBird-Pegasus model"):
        open_source(MINI, tmp_path / "config.json")


def test_a_head_of_another_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="BigBird-Pegasus has no head 'masked-lm'"):
        convert(MINI, tmp_path / "out", Settings(head="masked-lm"))


def test_heads_of_its_own_start_from_the_seed(tmp_path):
    report = convert(MINI, tmp_path / "out", Settings(head="sequence-classification"))
    assert sorted(report.plan.match.fills) == [
        *("classification_head.dense.bias", "classification_head.dense.kernel"),
        *("classification_head.out_proj.bias", "classification_head.out_proj.kernel"),
    ]
    convert(tmp_path / "out/torch", tmp_path / "again", Settings(to=("flax",)))
    assert weights(tmp_path / "again/flax") == weights(tmp_path / "out/flax")
    convert(MINI, tmp_path / "decoder", Settings(head="causal-lm"))
    names = safetensors.numpy.load_file(tmp_path / "decoder/torch/model.safetensors")
    assert "model.decoder.embed_tokens.weight" in names
    assert not any("encoder.layers" in name for name in names)
    convert(tmp_path / "decoder/torch", tmp_path / "flax", Settings(to=("flax",)))
    assert weights(tmp_path / "flax/flax") == weights(tmp_path / "decoder/flax")


def test_the_vocabulary_is_carried_as_a_tokenizer(tmp_path):
    source = checkpoint_of(tmp_path / "source", {}, {"vocab_model_file": "spm.model", "substitute_newline": None})
    (source / "spm.model").write_bytes((MINI / "spm.model").read_bytes())
    report = convert(source, tmp_path / "out", Settings(to=ALL))
    assert not any("no tokenizer" in note for note in report.plan.notes), report.plan.notes
    slow = BigBirdPegasusTokenizer.from_pretrained(tmp_path / "out/torch")
    fast = BigBirdPegasusTokenizerFast.from_pretrained(tmp_path / "out/flax")
    assert slow("a b\nc <s> [1]", text_target="d </s>") == fast("a b\nc <s> [1]", text_target="d </s>")
    assert (slow.substitute_newline, slow.eos_token_id, slow.unk_token_id) == ("", 1, 5)  # as the flags say
    assert json.loads((tmp_path / "out/tf/summarization.config").read_text())["substitute_newline"] is None
    (source / "summarization.config").unlink()
    convert(source, tmp_path / "own", Settings(num_attention_heads=2, vocab=source / "spm.model"))
    assert BigBirdPegasusTokenizer.from_pretrained(tmp_path / "own/torch").substitute_newline == "<n>"


@pytest.mark.parametrize(
    ("name", "lacks"), [("tiny-coupled", "coupled, postnorm"), ("prenorm-bert", "prenorm"), ("mini-pegasus", "")]
)
def test_what_transformers_cannot_compute_is_written_so_that_it_refuses(tmp_path, name, lacks):
    report = convert(require(GOLDEN[name]).checkpoint, tmp_path / "out", Settings(to=("torch",)))
    values = json.loads((tmp_path / "out/torch/config.json").read_text())
    assert values["attention_type"] == ", ".join(filter(None, ("block_sparse", lacks)))
    assert open_source(tmp_path / "out/torch").config == report.plan.config
    said = [note for note in report.plan.notes if note.startswith("torch: transformers has no")]
    assert bool(said) == bool(lacks)
    assert all(lack in note for note in said for lack in lacks.split(", "))


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "kind"),
    [("tiny-coupled", "BigBirdPegasusForConditionalGeneration"), ("prenorm-bert", "BigBirdForPreTraining")],
)
def test_transformers_refuses_what_it_cannot_compute(tmp_path, name, kind):
    transformers = pytest.importorskip("transformers")
    convert(require(GOLDEN[name]).checkpoint, tmp_path / "out", Settings(to=("torch",)))
    for peer in (getattr(transformers, kind), transformers.AutoModel):
        with pytest.raises(ValueError, match="attention_type can either be .* but is block_sparse, "):
            peer.from_pretrained(tmp_path / "out/torch")


@pytest.mark.parametrize(
    ("checkpoint", "flags"), [("mini-pegasus", "mini-pretrain"), ("mini-pretrain", "mini-pegasus")]
)
def test_flags_of_the_other_kind_of_model_are_refused(tmp_path, checkpoint, flags):
    (file,) = (path for path in GOLDEN[flags].checkpoint.glob("*.config"))
    kinds = {"mini-pegasus": "BigBird-Pegasus", "mini-pretrain": "BigBird"}
    message = rf"has the flags of a {kinds[flags]} model .*those of a {kinds[checkpoint]} model .*give the flags that"
    with pytest.raises(ValueError, match=message):
        convert(GOLDEN[checkpoint].checkpoint, tmp_path / "out", Settings(config_file=file))


def test_more_layers_of_the_decoder_than_of_the_encoder_are_refused(tmp_path):
    source = checkpoint_of(tmp_path / "source", {}, {"num_decoder_layers": 3})
    with pytest.raises(ValueError, match="decoder_layers is 3, .*encoder_layers = 2, .*num_decoder_layers and num_hid"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("scope", ["pegasus", "summaries/of/mine"])
def test_a_model_without_its_words_is_refused_as_what_it_is(tmp_path, scope):
    store = open_store(MINI).store
    arrays = {name.replace("pegasus", scope): read(store, name) for name in store.tensors if "Adafactor" not in name}
    arrays[f"{scope}/embeddings/weights"] = arrays.pop(f"{scope}/embeddings/word_embeddings")
    write_arrays(tmp_path, TensorBundleFormat(), arrays)
    with pytest.raises(ValueError, match="not a whole BigBird-Pegasus checkpoint") as caught:
        convert(tmp_path, tmp_path / "out")
    assert "it holds 65 weights of BigBird-Pegasus and lacks embeddings.word_embeddings.embedding" in str(caught.value)
