"""What is no whole BigBird model, by the names of its tensors."""

import numpy as np
import pytest

from bigbird_port.families.registry import families
from bigbird_port.formats.detection.tensor_names import NAMED_KINDS, check_tensor_names
from bigbird_port.formats.store import Stored
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from tests.conftest import DEMO

BODY = "bert.embeddings.word_embeddings.weight"
SELF = "bert.encoder.layer.0.attention.self.query"
PEFT = "base_model.model"
# (style, names, message)
KINDS = {
    "LoRA adapter": ("torch", [f"{PEFT}.{SELF}.lora_A.weight"], r"a LoRA adapter, which is no model.*merge_and_un"),
    "unmerged LoRA": (
        "torch",
        [f"{PEFT}.{BODY}", f"{PEFT}.{SELF}.base_layer.weight", f"{PEFT}.{SELF}.lora_A.default.weight"],
        r"not merged into the weights.*merge_and_unload\(\)",
    ),
    "unmerged LoRA of loralib": ("torch", [BODY, f"{SELF}.lora_A"], "not merged into the weights"),
    "IA3": ("torch", [f"base_model.model.{SELF}.ia3_l"], "an adapter of peft"),
    "prompts": ("torch", ["prompt_embeddings"], "an adapter of peft"),
    "adapters": ("torch", [BODY, "bert.encoder.layer.0.output.adapters.a.adapter_down.0.weight"], "adapter modules"),
    "bitsandbytes 8": ("torch", [BODY, f"{SELF}.weight", f"{SELF}.SCB"], "that bitsandbytes quantised"),
    "bitsandbytes 4": ("torch", [BODY, f"{SELF}.weight.quant_state.bitsandbytes__nf4"], "that bitsandbytes quantised"),
    "absmax": ("torch", [BODY, f"{SELF}.weight.absmax"], "that bitsandbytes quantised"),
    "GPTQ": ("torch", [BODY, f"{SELF}.qweight", f"{SELF}.qzeros", f"{SELF}.g_idx"], "quantised by GPTQ"),
    "AWQ": ("torch", [BODY, f"{SELF}.qweight", f"{SELF}.qzeros", f"{SELF}.scales"], "quantised by AWQ"),
    "packed": ("torch", [BODY, f"{SELF}.weight_packed"], "quantised weights, such as"),
    "integers": ("torch", [BODY, f"{SELF}.weight int8"], "of 8-bit integers"),
    "integers of Flax": ("flax", ["bert/encoder/layer/0/attention/self/query/kernel uint8"], "of 8-bit integers"),
    "floats of 8 bits": ("torch", [BODY, f"{SELF}.weight of type F8_E4M3"], "of 8-bit floating point"),
    "floats of 8 bits in torch": ("torch", [f"{SELF}.weight of type float8_e5m2"], "of 8-bit floating point"),
    "BERT": ("torch", [BODY, "bert.pooler.dense.weight"], "BERT's weights, such as bert.pooler.dense.weight"),
    "BERT of Flax": ("flax", ["bert/pooler/dense/kernel"], "BERT's weights"),
    "BERT of TensorFlow": ("original", ["bert/embeddings/LayerNorm/gamma"], "BERT's variables"),
    "RoBERTa": ("torch", ["roberta.embeddings.word_embeddings.weight"], r"another model \(roberta\)"),
    "RoBERTa, wrapped": ("torch", ["module.roberta.encoder.layer.0.output.dense.weight"], r"another model \(roberta\)"),
    "RoBERTa of Flax": ("flax", ["roberta/embeddings/word_embeddings/embedding"], r"another model \(roberta\)"),
    "ELECTRA of TensorFlow": ("original", ["electra/embeddings/word_embeddings"], r"another model \(electra\)"),
    "ALBERT": ("torch", ["albert.encoder.embedding_hidden_mapping_in.weight"], "ALBERT"),
    "T5 of TensorFlow": ("original", ["encoder/block_000/layer_000/SelfAttention/q"], "T5's variables"),
    "T5": ("torch", ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"], "T5's variables"),
    "BART": ("torch", ["model.encoder.layers.0.self_attn.k_proj.weight"], "an encoder and a decoder"),
    "Pegasus of Flax": ("flax", ["model/decoder/layers/0/encoder_attn/k_proj/kernel"], "an encoder and a decoder"),
    "encoder-decoder": ("torch", ["decoder.bert.encoder.layer.0.crossattention.self.key.weight"], "of two models"),
    "Llama": ("torch", ["model.layers.0.self_attn.q_proj.weight"], "such as Llama's"),
    "GPT-2": ("torch", ["transformer.h.0.attn.c_attn.weight"], "such as GPT-2's"),
    "GPT-2 of TensorFlow": ("original", ["model/h0/attn/c_attn/w"], "such as GPT-2's"),
    "Google's PEGASUS": ("original", ["decoder/layer_0/memory_attention/k/kernel"], "Pegasus' variables"),
}  # fmt: skip


def tensors(names):
    parts = (name.partition(" ") for name in names)
    return {
        name: Stored(None, (2, 2), dtype) if dtype.startswith("of") else Stored(np.dtype(dtype or "float32"), (2, 2))
        for name, _, dtype in parts
    }


@pytest.mark.parametrize("case", KINDS)
def test_what_is_no_bigbird_model_is_named(case):
    style, names, message = KINDS[case]
    with pytest.raises(ValueError, match=f"expected a BigBird model, found .*{message}"):
        check_tensor_names(tensors(names), style)


def test_every_kind_of_the_table_is_tried():
    tried = set()
    for style, names, _ in KINDS.values():
        with pytest.raises(ValueError, match="expected a BigBird model, found") as caught:
            check_tensor_names(tensors(names), style)
        tried |= {kind.found for kind in NAMED_KINDS if f"found {kind.found.partition('{')[0]}" in str(caught.value)}
    assert tried == {kind.found for kind in NAMED_KINDS}


@pytest.mark.parametrize("style", ["torch", "flax", "original", "neutral"])
@pytest.mark.parametrize("prefix", ["", "module.", "params/"])
def test_every_name_of_the_family_passes(style, prefix):
    """The negative control: all names of the schema, in every style, wrapped or not."""
    spelled = {
        "torch": lambda row: [row.torch],
        "flax": lambda row: [row.flax],
        "original": lambda row: [name.replace("{scope}", "roberta") for name in row.original],
        "neutral": lambda row: [row.name],
    }
    for family in families():
        names = [prefix + name.replace("{i}", "0") for row in family.schema for name in spelled[style](row)]
        assert len(names) > 30
        check_tensor_names(tensors(names), style)


def test_a_decoder_alone_passes_where_its_configuration_says_what_it_is():
    names = tensors(["model.decoder.layers.0.self_attn.k_proj.weight"])
    check_tensor_names(names, "torch", "bigbird_pegasus")
    with pytest.raises(ValueError, match="an encoder and a decoder"):
        check_tensor_names(names, "torch")


def test_checkpoints_of_the_family_pass():
    check_tensor_names(TensorBundle(DEMO / "model.ckpt-30").tensors, "original")
