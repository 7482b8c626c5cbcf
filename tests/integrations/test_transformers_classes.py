"""The models as transformers' own: the same numbers, files that both read, generation, pipelines, golden cases."""

import copy
import inspect
import pickle

import pytest
import torch

transformers = pytest.importorskip("transformers")

from bigbird_port.integrations import transformers as ported  # noqa: E402
from bigbird_port.integrations.transformers import outputs  # noqa: E402
from bigbird_port.tokenizers import write_tokenizer_files  # noqa: E402
from parity.given.golden import log_softmax, read_golden  # noqa: E402
from tests.conftest import GOLDEN  # noqa: E402
from tests.integrations.small import CONFIGS, NAMED, ids, inputs, product  # noqa: E402
from tests.vocabulary import train_vocabulary  # noqa: E402

CACHE = ported.PortedBigBirdConfig.keys_to_ignore_at_inference[0]
pytestmark = pytest.mark.peer


def class_of(name):
    return getattr(ported, f"Ported{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a function: class name -> the folder of a model that the product wrote, with a tokenizer."""
    path, made = tmp_path_factory.mktemp("ported"), {}
    (path / "spiece.model").write_bytes(train_vocabulary())

    def get(name):
        if name not in made:
            made[name] = product(name)
            made[name].save_pretrained(path / name)
            write_tokenizer_files(path / "spiece.model", path / name)
        return path / name

    return get


@pytest.mark.parametrize("name", NAMED)
def test_every_head_loads_computes_and_is_written(name, folder, tmp_path):
    model, info = class_of(name).from_pretrained(folder(name), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = product(name)
    with torch.no_grad():
        found, wanted = (one(inputs(name), output_hidden_states=True) for one in (model, expected))
        assert list(found) == [CACHE if key == "past_key_values" else key for key in wanted]
        assert (found[0] - wanted[0]).abs().max() < 1e-6
        assert isinstance(model(inputs(name), return_dict=False), tuple)
        model.save_pretrained(tmp_path)
        for again in (
            class_of(name).from_pretrained(tmp_path),
            type(expected).from_pretrained(tmp_path),
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
        ):
            assert (again(inputs(name))[0] - wanted[0]).abs().max() < 1e-6
    shown = inspect.signature(model.forward).parameters
    assert [key for key in inspect.signature(expected.forward).parameters if key != "output_taps"] == [
        "past_key_values" if key == CACHE else key for key in shown
    ]


def test_outputs_are_stored_and_loaded_before_any_model_ran(folder):
    output = class_of("BigBirdForMaskedLM").from_pretrained(folder("BigBirdForMaskedLM"))(ids())
    assert torch.equal(pickle.loads(pickle.dumps(output)).logits, output.logits)
    stored = pickle.dumps(output)
    outputs._MADE.clear()
    del vars(outputs)[type(output).__name__]
    assert torch.equal(pickle.loads(stored).logits, output.logits)
    with pytest.raises(AttributeError, match="PortedNothing"):
        _ = outputs.PortedNothing


@pytest.mark.parametrize("name", ["BigBirdForMaskedLM", "BigBirdPegasusForConditionalGeneration"])
def test_auto_classes_find_what_was_saved(name, folder, tmp_path):
    class_of(name).from_pretrained(folder(name)).save_pretrained(tmp_path)
    auto = transformers.AutoModelForMaskedLM if "Masked" in name else transformers.AutoModelForSeq2SeqLM
    model = auto.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert type(model) is class_of(name)
    assert model.dtype == torch.bfloat16
    assert transformers.AutoConfig.from_pretrained(tmp_path).model_type.endswith("_port")
    ported.register()  # once more


def test_a_configuration_is_checked_and_comes_back(tmp_path):
    config = ported.PortedBigBirdConfig(**CONFIGS["bigbird"].to_dict(), my_own=3)
    assert config.product() == CONFIGS["bigbird"]
    config.save_pretrained(tmp_path)
    again = ported.PortedBigBirdConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    assert (again.my_own, again.num_labels, again.random_blocks) == (3, 3, "original")
    with pytest.raises(ValueError, match="hidden_size is 15"):
        ported.PortedBigBirdConfig(hidden_size=15)
    assert ported.PortedBigBirdPegasusConfig(d_model=32).hidden_size == 32


def test_a_new_model_begins_initialised_as_configured():
    model = class_of("BigBirdForMaskedLM")(ported.PortedBigBirdConfig(**CONFIGS["bigbird"].to_dict()))
    weight = model.get_input_embeddings().weight
    assert weight.std().item() == pytest.approx(0.088, abs=0.004)  # 0.1, cut at two deviations
    assert weight.abs().max() <= 0.2
    assert not model.cls.predictions.bias.any()


def test_a_base_model_gets_a_new_head(folder):
    model, info = class_of("BigBirdForTokenClassification").from_pretrained(
        folder("BigBirdModel"), num_labels=5, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert model(ids()).logits.shape == (2, 20, 5)
    with torch.no_grad():
        states = model(ids(), output_hidden_states=True).hidden_states[-1]
        assert (states - product("BigBirdModel")(ids()).last_hidden_state).abs().max() < 1e-6


def test_everyday_methods_reach_the_product(folder):
    # with transformers' blocks attention is sparse from 80 tokens on
    model = class_of("BigBirdForMaskedLM").from_pretrained(folder("BigBirdForMaskedLM"), random_blocks="transformers")
    model.resize_token_embeddings(510)
    assert model.config.vocab_size == 510
    assert model(torch.tensor([[505, 3]])).logits.shape == (1, 2, 510)
    text = ids(1, 96)
    sparse = model(text).logits
    model.set_attention_type("original_full")
    assert not torch.equal(model(text).logits, sparse)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    assert model.is_gradient_checkpointing
    model.train()(text, labels=text).loss.backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad.abs().max() > 0
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    with pytest.raises(ValueError, match="every_n_layers is 2"):
        model.gradient_checkpointing_enable(every_n_layers=2)
    assert model.base_model is model.bert
    model.eval()
    model.config.pad_token_id = 300  # a script's assignment counts
    assert torch.equal(model(text.clamp(max=300)).logits[:, :5], model(text.clamp(max=300), text != 300).logits[:, :5])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    "name", ["BigBirdForCausalLM", "BigBirdPegasusForCausalLM", "BigBirdPegasusForConditionalGeneration"]
)
def test_generate_gives_the_same_with_a_cache_and_without(name, beams, folder):
    model = class_of(name).from_pretrained(folder(name))
    asked = {"max_new_tokens": 5, "num_beams": beams, "do_sample": False, "eos_token_id": None}
    with_cache, without = (model.generate(ids(length=9), use_cache=use, **asked) for use in (True, False))
    assert torch.equal(with_cache, without)
    assert len(set(with_cache.flatten().tolist())) > 3  # it did write
    if beams == 1 and name == "BigBirdForCausalLM":
        assert torch.equal(with_cache, product(name).generate(ids(length=9), max_new_tokens=5, eos_token_id=-1))
    if beams == 1 and "Conditional" in name:
        ours = product(name, eos_token_id=499).generate(ids(length=9), max_length=5)
        assert torch.equal(with_cache[:, 1:], ours)


def test_padded_prompts_are_continued_as_if_alone(folder):
    model, prompt = class_of("BigBirdForCausalLM").from_pretrained(folder("BigBirdForCausalLM")), ids(length=7)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), prompt), dim=1)
    asked = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    alone = model.generate(prompt, **asked)
    together = model.generate(padded, attention_mask=(padded != 0).long(), **asked)
    assert torch.equal(alone[:, 7:], together[:, 10:])


PIPELINES = {
    "fill-mask": ("BigBirdForMaskedLM", ("the [MASK] of the model",), {"token_str"}),
    "text-classification": ("BigBirdForSequenceClassification", ("the model",), {"label", "score"}),
    "token-classification": ("BigBirdForTokenClassification", ("the model",), {"entity", "word"}),
    "text-generation": ("BigBirdForCausalLM", ("the model",), {"generated_text"}),
    "feature-extraction": ("BigBirdModel", ("the model",), set()),
}


@pytest.mark.parametrize("task", PIPELINES)
def test_pipelines_run(task, folder):
    name, arguments, keys = PIPELINES[task]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder(name), model_max_length=64)
    model = class_of(name).from_pretrained(folder(name))
    run = transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
    found = run(*arguments, **({"max_new_tokens": 3} if task == "text-generation" else {}))
    if keys:
        assert keys <= found[0].keys()
    else:
        assert len(found[0][0]) == CONFIGS["bigbird"].hidden_size


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of tokenizers' own objects, in transformers
def test_a_pipeline_answers_questions(folder):
    name = "BigBirdForQuestionAnswering"
    if "question-answering" not in transformers.pipelines.get_supported_tasks():
        pytest.skip("this release of transformers has no such pipeline")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder(name))
    model = class_of(name).from_pretrained(folder(name))
    found = transformers.pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")(
        question="the model", context="a question of the model"
    )
    assert found["answer"].strip() in "a question of the model"


def test_a_pipeline_gives_the_original_numbers(converted, folder):
    """And with transformers' own random blocks it does not: the negative control."""
    golden = read_golden(GOLDEN["mini-pretrain"].cases[0])
    given = {name: torch.tensor(value) for name, value in golden.inputs.items() if name.endswith(("_ids", "_mask"))}
    real = golden.inputs["input_ids"] != 0
    errors = {}
    for blocks in ("original", "transformers"):
        config = {"max_encoder_length": golden.max_encoder_length, "random_blocks": blocks}
        model = ported.PortedBigBirdForMaskedLM.from_pretrained(converted("mini-pretrain") / "torch", **config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder("BigBirdModel"))  # not asked: ids are given
        run = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, device="cpu")
        logits = run.forward(given)["logits"].numpy()
        errors[blocks] = abs(log_softmax(logits) - golden.tensors["mlm_log_probs"])[real].max()
    assert errors["original"] < 1e-5
    assert errors["transformers"] > 0.1
