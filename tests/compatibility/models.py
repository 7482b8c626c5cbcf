"""Rows of models: of torch in both families, of Flax, from_pretrained and save_pretrained, and outputs."""

import copy
import pickle
import warnings

import torch

import models_torch
from tests.compatibility.row import Row, refuses


def load(scene, **keywords):
    return models_torch.BigBirdForSequenceClassification.from_pretrained(scene.folder, **keywords)


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def saved(scene, **keywords):
    scene.model.save_pretrained(scene.tmp / "saved", **keywords)
    return {path.name for path in (scene.tmp / "saved").iterdir()}


def traced(scene):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and that a length is fixed by it
        run = torch.jit.trace(scene.model, scene.ids)
    return (run(scene.ids)[0] - scene.model(scene.ids)[0]).abs().max() < 1e-6


def warned(scene):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    return "use_reentrant=True is not used" in str(caught[0].message)


def both(check):
    """A check of a model of either family."""
    return lambda scene: check(scene.model) and check(scene.writer)


def attending(model):
    model.set_attention_type("original_full")
    return model.config.attention_type == "original_full"


def checkpointing(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.gradient_checkpointing_disable()
    return True


def requiring(model):
    model.requires_grad_(False).enable_input_require_grads()
    return model.get_input_embeddings()(torch.tensor([[3]])).requires_grad


def resized(model):
    model.resize_token_embeddings(510, pad_to_multiple_of=64)
    return model.config.vocab_size == 512


MODELS = [
    Row("`Model(config)`", check=lambda s: same(s.model, type(s.model).from_config(s.model.config, seed=3))),
    Row(
        "`pickle`, `copy.deepcopy`, `torch.save(model)`",
        check=both(lambda m: same(pickle.loads(pickle.dumps(m)), m) and same(copy.deepcopy(m), m)),
    ),
    Row(
        "`torch.jit.trace`", "differs: the length of the example is fixed, because the pattern is made for one", traced
    ),
    Row("`device`, `dtype`", check=both(lambda m: (m.device.type, m.dtype) == ("cpu", torch.float32))),
    Row(
        "`num_parameters(only_trainable=, exclude_embeddings=)`",
        check=both(lambda m: m.num_parameters() > m.num_parameters(exclude_embeddings=True) > 0),
    ),
    Row("`base_model`, `base_model_prefix`", check=both(lambda m: m.base_model is getattr(m, m.base_model_prefix))),
    Row(
        "`get_input_embeddings`, `set_input_embeddings`",
        check=both(lambda m: m.set_input_embeddings(m.get_input_embeddings()) is None),
    ),
    Row(
        "`get_output_embeddings`",
        "differs: a layer made for the question, which holds the model's own weights",
        both(lambda m: m.get_output_embeddings().weight is m.get_input_embeddings().weight),
    ),
    Row(
        "`tie_weights`",
        "differs: does nothing, because the decoder always is the table of words",
        both(lambda m: m.tie_weights() is None),
    ),
    Row("`can_generate`", check=lambda s: s.writer.can_generate() and not s.model.can_generate()),
    Row("`set_attention_type`", check=both(attending)),
    Row("`enable_input_require_grads`", check=both(requiring)),
    Row("`resize_token_embeddings(pad_to_multiple_of=)`", check=lambda s: resized(s.model)),
    Row("`gradient_checkpointing_enable(gradient_checkpointing_kwargs=)`", check=both(checkpointing)),
    Row(
        "`gradient_checkpointing_kwargs={'use_reentrant': True}`",
        "differs: not used, with a warning, because the other way gives the same gradients",
        warned,
    ),
    Row(
        "`config.use_cache = False` and other assignments of Trainer",
        test="tests/families/test_config_everyday.py::test_trainers_assignments_work",
    ),
    Row(
        "`push_to_hub`",
        "differs: the classes of bigbird_port.integrations.transformers have it",
        lambda s: not hasattr(s.model, "push_to_hub"),
    ),
]

OUTPUTS = [
    Row(
        '`"logits" in out`, `out["logits"]`, `out.logits`',
        check=lambda s: "logits" in (o := s.output) and o["logits"] is o.logits,
    ),
    Row(
        "`out.keys()`, `out.items()`, `out.get(...)`, `**out`",
        check=lambda s: list(s.output.keys()) == ["logits", "hidden_states"] and dict(**s.output),
    ),
    Row("`out[0]`, `out[:2]`, `out.to_tuple()`", check=lambda s: (o := s.output)[0] is o[:2][0] is o.to_tuple()[0]),
    Row(
        "`type(out)(mapping)`, as Trainer and accelerate rebuild it",
        check=lambda s: list(type(s.output)(dict(s.output))) == ["logits", "hidden_states"],
    ),
    Row(
        "`isinstance(out, dict)`",
        "differs: a dataclass and a mapping; `dict(out)` makes one",
        lambda s: not isinstance(s.output, dict) and isinstance(dict(s.output), dict),
    ),
    Row(
        "`past_key_values`",
        "differs: one tuple of tensors a layer, not transformers' `Cache`; the classes of "
        "bigbird_port.integrations.transformers give that",
        test="tests/models/test_everyday_pegasus.py::test_outputs_are_rebuilt_as_trainer_and_accelerate_do",
    ),
]

LOADING = [
    Row(
        "`dtype=`, `torch_dtype=`",
        check=lambda s: (
            load(s, dtype="bfloat16").dtype == torch.bfloat16
            and load(s, torch_dtype=torch.float16).dtype == torch.float16
        ),
    ),
    Row("`device_map=` a device", check=lambda s: load(s, device_map="cpu").device.type == "cpu"),
    Row(
        '`device_map="auto"`',
        "works; through accelerate, where it is installed",
        test="tests/integrations/test_trainer.py::test_accelerate_places_the_models",
    ),
    Row("`low_cpu_mem_usage=`", "works; memory is always low", lambda s: load(s, low_cpu_mem_usage=True) is not None),
    Row('`attn_implementation="eager"`', check=lambda s: load(s, attn_implementation="eager") is not None),
    Row(
        '`attn_implementation="sdpa"`',
        "differs: refused, because the fastest attention is taken by itself",
        refuses("only 'eager' is there", lambda s: load(s, attn_implementation="sdpa")),
    ),
    Row("`config=`", check=lambda s: load(s, config=s.folder / "config.json") is not None),
    Row(
        "fields of the configuration (`num_labels=`, `id2label=`)",
        check=lambda s: load(s, id2label={0: "no", 1: "yes"}).config.label2id == {"no": 0, "yes": 1},
    ),
    Row(
        "`ignore_mismatched_sizes=`, `output_loading_info=`",
        check=lambda s: load(s, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)[1][
            "mismatched_keys"
        ],
    ),
    Row(
        "a head that the folder lacks",
        "differs: an error, unless `init_seed=` says from which seed it is drawn",
        refuses(
            "classifier.*init_seed", lambda s: models_torch.BigBirdForTokenClassification.from_pretrained(s.folder)
        ),
    ),
    Row(
        "`subfolder=`",
        check=lambda s: (
            models_torch.BigBirdForSequenceClassification.from_pretrained(s.folder.parent, subfolder=s.folder.name)
            is not None
        ),
    ),
    Row("`use_safetensors=`", check=lambda s: load(s, use_safetensors=True) is not None),
    Row(
        "`local_files_only=`, `token=`, `revision=`, `cache_dir=`, `force_download=`",
        check=lambda s: load(s, local_files_only=True, token=None, revision=None, cache_dir=None) is not None,
    ),
    Row(
        "a name of the hub",
        "works; where there is no connection the message says what to run",
        refuses(
            "run 'hf download a/b", lambda s: models_torch.BigBirdModel.from_pretrained("a/b", local_files_only=True)
        ),
    ),
    Row(
        "an argument that there is not",
        "differs: refused, with the nearest name",
        refuses("did you mean 'device_map'", lambda s: load(s, device_maps="cpu")),
    ),
    Row(
        "`quantization_config=`, `load_in_8bit=`, `load_in_4bit=`",
        "differs: refused, with the next step",
        refuses("not offered", lambda s: load(s, load_in_8bit=True)),
    ),
]

SAVING = [
    Row("`save_pretrained(folder)`", check=lambda s: saved(s) == {"config.json", "model.safetensors"}),
    Row("`safe_serialization=False`", check=lambda s: "pytorch_model.bin" in saved(s, safe_serialization=False)),
    Row("`max_shard_size=`", check=lambda s: "model.safetensors.index.json" in saved(s, max_shard_size="4KB")),
    Row("`state_dict=`", check=lambda s: saved(s, state_dict=s.model.state_dict())),
    Row(
        "`is_main_process=`, `save_function=`",
        check=lambda s: (
            s.model.save_pretrained(s.tmp / "x", is_main_process=False) is None and not (s.tmp / "x").exists()
        ),
    ),
]

FLAX = [
    Row(
        "`pickle`, `copy.deepcopy`", check=lambda s: copy.deepcopy(pickle.loads(pickle.dumps(s.flax))).num_parameters()
    ),
    Row(
        "`num_parameters`, `base_model_prefix`, `can_generate`",
        check=lambda s: s.flax.num_parameters() and s.flax.base_model_prefix == "bert" and not s.flax.can_generate(),
    ),
    Row("`set_attention_type`", check=lambda s: attending(s.flax)),
    Row("`gradient_checkpointing_enable`", check=lambda s: s.flax.gradient_checkpointing_enable() is None),
    Row(
        "`save_pretrained(params=, safe_serialization=)`",
        check=lambda s: (
            s.flax.save_pretrained(s.tmp / "f", safe_serialization=True) is None
            and (s.tmp / "f/model.safetensors").is_file()
        ),
    ),
    Row(
        "flax.nnx: `nnx.Optimizer`, `nnx.jit`",
        "works; through `models_flax.nnx.to_nnx(model)`, and back by `to_params`",
        test="tests/models/test_flax_nnx.py::test_an_optimizer_of_nnx_trains_it",
    ),
    Row("`to_bf16`, `to_fp16`, `to_fp32`", check=lambda s: (f := s.flax).to_bf16(f.params) is not None),
    Row(
        "`device_map=`",
        "differs: refused, because `jax.default_device` and models_flax.sharding place parameters",
        refuses("jax.default_device", lambda s: type(s.flax).from_pretrained(s.folder, device_map="cpu")),
    ),
]
