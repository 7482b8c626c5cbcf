"""What people's own scripts do with a model: store it whole, load it their way, read outputs, train with Trainer."""

import copy
import dataclasses
import io
import pickle
import warnings

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_flax.outputs
import models_torch
import models_torch.outputs
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.fields import HIDDEN_ACTS
from models_torch.bigbird.cache import LayerCache
from models_torch.bigbird.outputs import BigBirdHeadOutput
from tests.integrations.small import product
from tests.models.torch_models import DECODER, TINY, model_class, padded, random_ids

SMALL = TINY.replace(num_hidden_layers=1, max_position_embeddings=256)
FRAMEWORKS = ("torch", "flax")


def class_of(framework, head):
    return model_class(head) if framework == "torch" else getattr(models_flax, HEADS[head].flax_class_name)


def weights_of(model):
    if isinstance(model, torch.nn.Module):
        return [x.detach().numpy() for x in model.state_dict().values()]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)]


def equal(first, second):
    ours, theirs = weights_of(first), weights_of(second)
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both frameworks' folders of a sequence classifier, as convert would lay them out."""
    path = tmp_path_factory.mktemp("model")
    for framework in FRAMEWORKS:
        class_of(framework, "sequence-classification").from_config(SMALL, 3).save_pretrained(path / framework)
    return path


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", HEADS)
def test_every_model_pickles_and_copies(framework, head):
    model = class_of(framework, head).from_config(SMALL, 5)
    assert equal(pickle.loads(pickle.dumps(model)), model)
    again = copy.deepcopy(model)
    assert equal(again, model)
    assert again.config == model.config
    assert again.initialised == model.initialised


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("activation", HIDDEN_ACTS)
def test_a_model_with_any_activation_pickles(framework, activation):
    pickle.loads(pickle.dumps(class_of(framework, "base").from_config(SMALL.replace(hidden_act=activation))))


def test_a_whole_model_is_saved_and_loaded_by_torch():
    model, file = model_class("masked-lm").from_config(SMALL), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    ids = random_ids(1, 20)
    assert torch.equal(torch.load(file, weights_only=False)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_outputs_pickle(framework):
    model = class_of(framework, "masked-lm").from_config(SMALL)
    ids = random_ids(1, 20)
    with torch.no_grad():
        output = model(ids) if framework == "torch" else model(ids.numpy())
    for again in (pickle.loads(pickle.dumps(output)), copy.deepcopy(output)):
        assert np.array_equal(np.asarray(again.logits), np.asarray(output.logits))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_outputs_are_mappings(framework):
    model = class_of(framework, "masked-lm").from_config(SMALL)
    ids = random_ids(1, 20)
    with torch.no_grad():
        output = model(ids if framework == "torch" else ids.numpy(), output_hidden_states=True, output_taps=True)
    assert "logits" in output
    assert "loss" not in output
    assert "to_tuple" not in output
    assert list(output) == list(output.keys()) == ["logits", "hidden_states"]
    assert output.get("loss", 7) == 7
    assert dict(**output)["logits"] is output.logits is output["logits"] is output[0] is output[:1][0]
    assert len(output) == len(output.to_tuple()) == len(output.items()) == 2
    assert output["taps"] is output.taps
    with pytest.raises(KeyError, match="attentions"):
        output["attentions"]


def test_outputs_are_rebuilt_from_a_mapping():
    """As accelerate and Trainer do: type(output)({name: f(value)})."""
    logits, hidden = torch.ones(2, 3), (torch.zeros(1), torch.zeros(2))
    output = BigBirdHeadOutput(loss=None, logits=logits, hidden_states=hidden)
    again = BigBirdHeadOutput(dict(output))
    assert again.loss is None
    assert again.logits is logits
    assert again.hidden_states is hidden
    with pytest.raises(TypeError, match="other"):
        BigBirdHeadOutput({"other": logits})
    doubled = torch.utils._pytree.tree_map(lambda x: x + 1, output)
    assert isinstance(doubled, BigBirdHeadOutput)
    assert torch.equal(doubled.logits, logits + 1)


def test_a_layers_cache_is_a_tuple_of_tensors():
    key, value = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    cache = LayerCache(key, value)
    assert tuple(cache) == (key, value) or (cache[0] is key and cache[1] is value)
    assert len(cache) == 2
    assert cache.cross_key is None
    again = type(cache)(x + 1 for x in cache)  # what Trainer does to nested tuples
    assert torch.equal(again.value, value + 1)
    whole = LayerCache(key, value, value, key)
    assert len(whole) == 4
    assert whole.cross_key is value
    assert isinstance(torch.utils._pytree.tree_map(lambda x: x, whole), LayerCache)
    assert torch.equal(pickle.loads(pickle.dumps(whole)).cross_value, key)
    with pytest.raises(ValueError, match="found 3"):
        LayerCache(key, value, key)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", HEADS)
def test_the_constructor_draws_what_from_config_draws(framework, head):
    built, made = class_of(framework, head)(SMALL, seed=4), class_of(framework, head).from_config(SMALL, 4)
    assert equal(built, made)
    assert built.initialised == made.initialised != []
    assert not equal(built, class_of(framework, head)(SMALL))


def test_a_new_model_begins_at_the_loss_of_guessing():
    ids = random_ids(2, 40)
    model = models_torch.BigBirdForMaskedLM(SMALL.replace(initializer_range=0.02)).eval()
    assert model(ids, labels=ids).loss.item() == pytest.approx(np.log(SMALL.vocab_size), abs=0.1)
    assert model.bert.embeddings.word_embeddings.weight.std().item() == pytest.approx(
        0.0176, abs=0.001
    )  # cut at two sigma


def test_a_model_without_values_stays_without():
    with torch.device("meta"):
        model = models_torch.BigBirdForMaskedLM(SMALL)
    assert all(x.is_meta for x in model.parameters())
    assert model.initialised == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("build", [lambda cls: cls(SMALL), lambda cls: cls.from_config(SMALL)], ids=["built", "config"])
def test_positions_are_extended_however_a_model_was_made(framework, build):
    model = build(class_of(framework, "masked-lm")).extend_positions(300)
    assert model.config.max_position_embeddings == 300
    assert model.initialised != []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_generation_ends_with_any_of_several_tokens(framework):
    model = class_of(framework, "causal-lm").from_config(DECODER, 2)
    ids = random_ids(2, 6)

    def generate(**options):
        found = model.generate(ids if framework == "torch" else ids.numpy(), max_new_tokens=6, **options)
        return np.asarray(found)[:, 6:]

    free = generate(eos_token_id=-1)
    assert free.shape == (2, 6)
    ends = sorted({int(free[0, 1]), int(free[1, 2])})
    found = generate(eos_token_id=ends, pad_token_id=0)
    for text, unbounded in zip(found, free, strict=True):
        stop = next(i for i, token in enumerate(unbounded) if token in ends)
        assert (text[: stop + 1] == unbounded[: stop + 1]).all()
        assert (text[stop + 1 :] == 0).all()


@pytest.mark.parametrize("length", [40, 250], ids=["full", "sparse"])
@pytest.mark.parametrize("head", ["base", "masked-lm", "qa", "sequence-classification"])
def test_a_traced_model_gives_the_same(head, length):
    config = TINY.replace(num_hidden_layers=1)
    model = model_class(head).from_config(config)
    ids, mask = padded(2, length)
    other, other_mask = padded(2, length, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and that a length is fixed by it
        traced = torch.jit.trace(model, (ids, mask))
    for a, b in zip(traced(other, other_mask), model(other, other_mask).to_tuple(), strict=True):
        assert (a - b).abs().max() < 1e-6


def test_the_configuration_says_what_a_call_returns():
    config = SMALL.replace(output_hidden_states=True, output_attentions=True, return_dict=False)
    for framework in FRAMEWORKS:
        model = class_of(framework, "masked-lm").from_config(config)
        ids = random_ids(1, 20)
        found = model(ids if framework == "torch" else ids.numpy())
        assert isinstance(found, tuple)
        assert [len(x) for x in found[1:]] == [2, 1]
        asked = model(ids if framework == "torch" else ids.numpy(), output_attentions=False, return_dict=True)
        assert list(asked) == ["logits", "hidden_states"]


def test_a_model_tells_what_it_is():
    model = models_torch.BigBirdForMaskedLM(SMALL)
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert model.to(torch.bfloat16).dtype == torch.bfloat16
    assert model.base_model is model.bert
    assert getattr(model, model.base_model_prefix) is model.bert
    assert model.bert.base_model is model.bert
    total = sum(x.numel() for x in model.parameters())
    embedded = sum(x.numel() for name, x in model.named_parameters() if "_embeddings" in name)
    assert model.num_parameters() == total
    assert model.num_parameters(exclude_embeddings=True) == total - embedded
    model.bert.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == sum(x.numel() for x in model.cls.parameters())
    assert not model.can_generate()
    assert models_torch.BigBirdForCausalLM(DECODER).can_generate()
    model.tie_weights()
    decoder = model.get_output_embeddings()
    assert decoder.weight is model.get_input_embeddings().weight
    assert decoder.bias is model.cls.predictions.bias
    assert models_torch.BigBirdModel(SMALL).get_output_embeddings() is None


def test_the_flax_twin_tells_it_too():
    model = models_flax.FlaxBigBirdForMaskedLM(SMALL)
    assert model.num_parameters() == sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert not model.can_generate()
    assert models_flax.FlaxBigBirdForCausalLM(DECODER).can_generate()
    model.gradient_checkpointing_enable()
    assert model.module.gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.module.gradient_checkpointing


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_attention_is_changed_after_loading(framework):
    ids = random_ids(1, 250)
    model = class_of(framework, "base").from_config(TINY.replace(num_hidden_layers=1))
    fully = class_of(framework, "base").from_config(model.config.replace(attention_type="original_full"))

    def run(model):
        return np.asarray(model(ids if framework == "torch" else ids.numpy())[0].__array__())

    with torch.no_grad():
        sparse = run(model)
        model.set_attention_type("original_full")
        assert np.array_equal(run(model), run(fully))
        assert not np.array_equal(run(model), sparse)
    with pytest.raises(ValueError, match="attention_type is 'sparse'"):
        model.set_attention_type("sparse")
    with pytest.raises(ValueError, match="a decoder cannot attend"):
        class_of(framework, "causal-lm").from_config(DECODER).set_attention_type("block_sparse")


def test_gradients_reach_frozen_embeddings_where_asked():
    model = models_torch.BigBirdForMaskedLM(SMALL)
    model.requires_grad_(False)
    ids = random_ids(1, 20)
    assert not model(ids).logits.requires_grad
    model.enable_input_require_grads()
    assert model(ids).logits.requires_grad
    model.disable_input_require_grads()
    assert not model(ids).logits.requires_grad


def test_checkpointing_takes_trainers_arguments():
    model = models_torch.BigBirdForMaskedLM(SMALL)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.bert.encoder.gradient_checkpointing
    model.gradient_checkpointing_enable({"preserve_rng_state": False})
    assert model.bert.encoder.checkpoint_options == {"preserve_rng_state": False}
    ids = random_ids(1, 20)
    model(ids, labels=ids).loss.backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad.abs().max() > 0
    with pytest.warns(UserWarning, match="use_reentrant=True is not used"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="there is no 'reentrant'"):
        model.gradient_checkpointing_enable({"reentrant": True})


@pytest.mark.parametrize("name", ["BigBirdForMaskedLM", "BigBirdPegasusForCausalLM"])
def test_checkpointing_takes_what_trainer_of_transformers_5_gives(name):
    model = product(name)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=None, every_n_layers=1, offload=None)
    for asked in ({"every_n_layers": 2}, {"offload": "cpu"}):
        with pytest.raises(ValueError, match=f"{next(iter(asked))} is .*leave it out"):
            model.gradient_checkpointing_enable(**asked)


def test_a_vocabulary_is_rounded_up():
    model = models_torch.BigBirdForMaskedLM(SMALL)
    model.resize_token_embeddings(pad_to_multiple_of=64)
    assert model.config.vocab_size == 128
    model.resize_token_embeddings(130, pad_to_multiple_of=64)
    assert model.get_output_embeddings().weight.shape == (192, 16)
    assert model(torch.tensor([[191, 3]])).logits.shape == (1, 2, 192)
    with pytest.raises(ValueError, match="pad_to_multiple_of is 0"):
        model.resize_token_embeddings(pad_to_multiple_of=0)


@pytest.mark.parametrize("size", ["5GB", "4KB"])
def test_pickled_weights_are_written_and_read(size, tmp_path):
    model = models_torch.BigBirdForMaskedLM(SMALL, seed=2)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size=size, safe_serialization=False)
    assert not list(tmp_path.glob("*.safetensors"))
    assert (tmp_path / "pytorch_model.bin.index.json").is_file() == (size == "4KB")
    assert equal(models_torch.BigBirdForMaskedLM.from_pretrained(tmp_path), model)


def test_other_weights_are_written_in_their_place(tmp_path):
    model = models_torch.BigBirdForMaskedLM(SMALL)
    doubled = {name: 2 * x for name, x in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=doubled, is_main_process=False)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path, state_dict=doubled)
    again = models_torch.BigBirdForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(again.cls.predictions.bias, doubled["cls.predictions.bias"])
    with pytest.raises(ValueError, match="state_dict: module.x is missing, or no weight"):
        model.save_pretrained(tmp_path, state_dict=doubled | {"module.x": torch.zeros(1)})


def load(framework, folder, **keywords):
    return class_of(framework, "sequence-classification").from_pretrained(folder / framework, **keywords)


def test_a_model_is_loaded_in_another_type_and_place(folder):
    for keywords in ({"dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16}):
        assert load("torch", folder, **keywords).dtype == torch.bfloat16
    assert load("torch", folder, dtype="auto", device_map="cpu").dtype == torch.float32
    assert load("torch", folder, device_map={"": "meta"}).device.type == "meta"
    for wrong in ("bfloat", torch.int64):
        with pytest.raises(ValueError, match="expected a type of floating-point numbers"):
            load("torch", folder, dtype=wrong)
    with pytest.raises(ValueError, match="device_map is 'gpu'"):
        load("torch", folder, device_map="gpu")


def test_spreading_a_model_needs_accelerate(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="device_map='auto' needs accelerate, .*pip install accelerate"):
        load("torch", folder, device_map="auto")


def test_a_model_is_spread_by_accelerate(folder):
    pytest.importorskip("accelerate")
    ids = random_ids(1, 20)
    assert torch.equal(load("torch", folder, device_map="auto")(ids).logits, load("torch", folder)(ids).logits)


def test_flax_names_its_own_way(folder):
    assert load("flax", folder, dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(ValueError, match="torch_dtype is not offered: give dtype"):
        load("flax", folder, torch_dtype="bfloat16")
    with pytest.raises(ValueError, match="device_map is not offered: .*jax.default_device"):
        load("flax", folder, device_map="auto")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_from_pretrained_takes_what_scripts_give(framework, folder):
    plain = load(framework, folder)
    keywords = {"low_cpu_mem_usage": True, "attn_implementation": "eager", "local_files_only": True, "token": None}
    more = {"revision": "main", "cache_dir": None, "trust_remote_code": False, "gradient_checkpointing": True}
    assert equal(load(framework, folder, **keywords, **more), plain)
    cls = class_of(framework, "sequence-classification")
    assert equal(cls.from_pretrained(folder, subfolder=framework), plain)
    assert equal(cls.from_pretrained(str(folder / framework), config=plain.config), plain)
    assert load(framework, folder, config=folder / framework, block_size=32).config.block_size == 32


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_labels_are_given_while_loading(framework, folder):
    names = {0: "no", 1: "yes", 2: "perhaps"}
    model = load(framework, folder, id2label=names, label2id={name: i for i, name in names.items()})
    assert dict(model.config.id2label) == names


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_head_of_another_size_is_drawn_where_asked(framework, folder):
    with pytest.raises(ValueError, match="the configuration makes it"):
        load(framework, folder, num_labels=7)
    model, info = load(framework, folder, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True)
    assert model.config.num_labels == 7
    assert len(info["mismatched_keys"]) == 2
    assert all("out_proj" in name for name in info["mismatched_keys"])
    assert info["missing_keys"] == info["error_msgs"] == []
    kept = load(framework, folder)
    same = sum(np.array_equal(a, b) for a, b in zip(weights_of(model), weights_of(kept), strict=True))
    assert same == len(weights_of(kept)) - 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_loading_tells_what_was_missing_and_what_is_left(framework, folder):
    cls = class_of(framework, "token-classification")
    with pytest.raises(ValueError, match="init_seed=0"):
        cls.from_pretrained(folder / framework)
    model, info = cls.from_pretrained(folder / framework, init_seed=0, output_loading_info=True)
    assert sorted(name.split("/" if framework == "flax" else ".")[0] for name in info["missing_keys"]) == 2 * [
        "classifier"
    ]
    assert any("classifier" in name for name in info["unexpected_keys"])
    assert len(model.initialised) == 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_kind_of_weight_file_is_chosen(framework, folder, tmp_path):
    model = load(framework, folder)
    model.save_pretrained(tmp_path, safe_serialization=True)
    cls = type(model)
    assert equal(cls.from_pretrained(tmp_path, use_safetensors=True), model)
    with pytest.raises(ValueError, match="use_safetensors is False, but there is no weight file of that kind"):
        cls.from_pretrained(tmp_path, use_safetensors=False)


def test_weights_that_a_trainer_saved_load_with_the_configuration(tmp_path):
    """Trainer writes model.safetensors alone for a class that is not transformers'."""
    model = models_torch.BigBirdForMaskedLM(SMALL, seed=3)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json"):
        models_torch.BigBirdForMaskedLM.from_pretrained(tmp_path)
    assert equal(models_torch.BigBirdForMaskedLM.from_pretrained(tmp_path, config=SMALL), model)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_lenght": 5}, "there is no argument 'max_lenght': did you mean 'max_encoder_length'"),
        ({"ignore_mismatched": True}, "did you mean 'ignore_mismatched_sizes'"),
        ({"zzz": 1}, "there is no argument 'zzz': leave it out"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation is 'flash_attention_2', but only 'eager'"),
        ({"from_tf": True}, "from_tf is not offered: run 'bigbird-port convert"),
        ({"load_in_8bit": True}, "load_in_8bit is not offered"),
        ({"config": {"vocab_size": 5}}, "config is of type dict, expected a BigBirdConfig"),
    ],
)
def test_what_is_not_there_is_refused_with_the_next_step(framework, folder, keywords, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(framework, folder, **keywords)
    assert "vocab_size, hidden_size" not in str(caught.value)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_tensorflow_checkpoint_is_to_be_converted(framework, tmp_path):
    for name in ("checkpoint", "model.ckpt-3.index", "model.ckpt-3.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    for place in (tmp_path, tmp_path / "model.ckpt-3"):
        with pytest.raises(ValueError, match=f"bigbird-port convert {place} OUT"):
            class_of(framework, "base").from_pretrained(place)


NAME = "someone/bigbird"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_model_of_the_hub_is_fetched(framework, folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    def fetch(name, allow_patterns, **options):
        calls.append((name, allow_patterns, options))
        return str(folder / framework)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    cls = class_of(framework, "sequence-classification")
    assert equal(cls.from_pretrained(NAME, revision="v1", token="t"), load(framework, folder))
    name, patterns, options = calls[0]
    assert name == NAME
    assert "config.json" in patterns
    assert options["revision"] == "v1"
    assert options["token"] == "t"
    with pytest.raises(ValueError, match="no weights that the"):
        cls.from_pretrained(NAME, use_safetensors=framework == "flax")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_model_of_the_hub_that_cannot_be_fetched_names_the_next_step(framework, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def fail(*args, **options):
        raise OSError("no route to the hub\nmore")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=f"{NAME}: .*'hf download {NAME} --local-dir FOLDER'.*no route to the hub"):
        class_of(framework, "base").from_pretrained(NAME)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        class_of(framework, "base").from_pretrained(NAME)
    with pytest.raises(ValueError, match="there is no such folder"):
        class_of(framework, "base").from_pretrained("nowhere")


def test_the_fields_of_outputs_are_alike():
    for name in ("BigBirdModelOutput", "BigBirdForPreTrainingOutput", "BigBirdHeadOutput"):
        ours, theirs = (getattr(outputs, name) for outputs in (models_torch.outputs, models_flax.outputs))
        assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
