"""Rows of configurations, of batches and tokenizers, and of what others do with the models."""

import copy
import pickle
import warnings
from dataclasses import FrozenInstanceError

import torch

from bigbird_port.tokenizers import MaskingCollator, PaddingCollator
from tests.compatibility.row import Row, refuses

TRAINER = "tests/integrations/test_trainer.py::"
GENERATION = "tests/integrations/test_generation_clients.py::"
PORTED = "tests/integrations/test_transformers_classes.py::"


def assigned(scene, name, value):
    for config in (copy.copy(scene.config), copy.copy(scene.pegasus)):
        setattr(config, name, value)
        assert getattr(config, name) == value
    return True


def written(scene):
    scene.config.save_pretrained(scene.tmp / "c")
    return type(scene.config).from_pretrained(scene.tmp / "c") == scene.config


def warns(scene):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene.tokenizer("the model", truncation=True)
    return "give max_length" in str(caught[0].message)


def padded_with_end(scene):
    tokenizer = copy.deepcopy(scene.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    rows = tokenizer(["the model", "the"], padding=True)
    return (
        rows["input_ids"][1][-1] == tokenizer.pad_token_id == tokenizer.eos_token_id and rows.attention_mask[1][-1] == 0
    )


def added(scene):
    tokenizer = copy.deepcopy(scene.tokenizer)
    assert tokenizer.add_tokens(["newword"]) == 1
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<table>"]}) == 1
    return {"newword", "<table>"} <= tokenizer.get_added_vocab().keys()


def rows(scene, **more):
    return [{**scene.tokenizer(text), **more} for text in ("the model", "a question of the model")]


CONFIGURATION = [
    Row("`config.use_cache = False`", check=lambda s: assigned(s, "use_cache", False)),
    Row("`config.pad_token_id = ...`, `eos_token_id`, `bos_token_id`", check=lambda s: assigned(s, "pad_token_id", 5)),
    Row("`config.problem_type = ...`", check=lambda s: assigned(s, "problem_type", "regression")),
    Row(
        "`config.output_hidden_states`, `output_attentions`, `return_dict`",
        check=lambda s: assigned(s, "output_hidden_states", True),
    ),
    Row(
        "`id2label`, `label2id`",
        check=lambda s: s.config.replace(id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1},
    ),
    Row("fields of the user's own", check=lambda s: assigned(s, "my_own", 3)),
    Row(
        "`config.hidden_size = ...` and whatever a model is made by",
        "differs: refused; `config.replace(hidden_size=...)` makes another configuration",
        refuses("hidden_size cannot be assigned", lambda s: setattr(s.config, "hidden_size", 8), FrozenInstanceError),
    ),
    Row(
        "a misspelt field",
        "differs: refused, with the nearest name",
        refuses("did you mean 'vocab_size'", lambda s: type(s.config)(vocab_sizes=3)),
    ),
    Row(
        "`to_dict`, `to_json_string`, `to_diff_dict`, `to_json_file`",
        check=lambda s: '"model_type": "big_bird"' in s.config.to_json_string(),
    ),
    Row("`save_pretrained`, `from_pretrained`, `from_json_file`", check=written),
    Row(
        "`model_type`, `is_encoder_decoder`, `use_return_dict`, `tie_word_embeddings`",
        check=lambda s: (
            (s.pegasus.model_type, s.pegasus.is_encoder_decoder) == ("bigbird_pegasus", True)
            and s.config.use_return_dict
            and s.config.tie_word_embeddings
        ),
    ),
    Row("`update`", check=lambda s: copy.copy(s.config).update({"use_cache": False}) is None),
]

BATCHES = [
    Row("`batch.to(device)`", check=lambda s: s.batch.to("cpu")["input_ids"].device.type == "cpu"),
    Row(
        "`batch.to(device)` of lists",
        "differs: refused, because nothing would be moved",
        refuses("return_tensors='pt'", lambda s: s.tokenizer("the model").to("cpu")),
    ),
    Row("`batch.data`, `batch.keys()`, `batch.input_ids`", check=lambda s: s.batch.data.keys() == s.batch.keys()),
    Row("`batch[0]`, `batch[:1]`", check=lambda s: s.batch[0].ids == s.batch["input_ids"][0].tolist()),
    Row(
        "`convert_to_tensors`", check=lambda s: s.tokenizer(["the model"]).convert_to_tensors("pt").input_ids.ndim == 2
    ),
    Row(
        "`tokens`, `words`, `word_ids`, `sequence_ids` (`batch_index=`)",
        check=lambda s: s.batch.words(batch_index=1) == s.batch.word_ids(1),
    ),
    Row("`word_to_tokens`, `word_to_chars`", check=lambda s: s.batch.word_to_tokens(0, 0).start == 1),
    Row(
        "`token_to_word`, `token_to_chars`, `token_to_sequence`", check=lambda s: s.batch.token_to_chars(0, 1) == (0, 3)
    ),
    Row("`char_to_token`, `char_to_word`", check=lambda s: s.batch.char_to_token(0, 1) == 1),
    Row("`n_sequences`, `is_fast`", check=lambda s: (s.batch.n_sequences, s.batch.is_fast) == (1, True)),
    Row(
        "these of a slow tokenizer",
        "differs: refused with the next step, as in transformers",
        refuses("such as BigBirdTokenizerFast", lambda s: s.slow("the model").word_ids()),
    ),
    Row("`pickle`, `copy`", check=lambda s: pickle.loads(pickle.dumps(s.batch)).keys() == s.batch.copy().keys()),
]

TOKENIZERS = [
    Row("`add_tokens`, `add_special_tokens`, `get_added_vocab`", check=added),
    Row("added tokens in both directions of conversion", test="tests/conversion/brought/test_tokenizers_carried.py::"),
    Row("`tok.pad_token = tok.eos_token`", check=padded_with_end),
    Row("`text_target=`", check=lambda s: "labels" in s.tokenizer("the", text_target="model")),
    Row("`truncation=True` without a limit", "works; warns, and cuts nothing", warns),
    Row(
        "`train_new_from_iterator`",
        "differs: trained by sentencepiece, so that the slow one has it too",
        test="tests/tokenizers/test_everyday.py::test_a_new_vocabulary_is_trained",
    ),
    Row(
        "padding of labels (`PaddingCollator`)",
        check=lambda s: PaddingCollator(s.tokenizer)(rows(s, labels=[1, 1]))["labels"].shape[0] == 2,
    ),
    Row(
        "masking of tokens and of whole words (`MaskingCollator`)",
        test="tests/tokenizers/test_everyday.py::test_words_are_masked",
    ),
    Row(
        "transformers' `DataCollatorWithPadding`, `DataCollatorForTokenClassification`",
        test="tests/compatibility/test_compatibility.py::test_transformers_collators_take_the_tokenizers",
    ),
    Row(
        "transformers' `DataCollatorForWholeWordMask`",
        "differs: of BERT's tokenizers alone; `MaskingCollator(tokenizer, whole_words=True)` is for these",
        lambda s: (
            not hasattr(s.tokenizer, "_convert_id_to_token")
            and (MaskingCollator(s.tokenizer, whole_words=True)(rows(s))["labels"] != 0).any()
        ),
    ),
    Row(
        "`apply_chat_template`",
        "differs: there is none, because no BigBird was trained on chats",
        lambda s: not hasattr(s.tokenizer, "apply_chat_template"),
    ),
]

CLIENTS = [
    Row(
        "Trainer with the product's own classes",
        "works; a checkpoint holds weights alone: load it with `config=`",
        test=TRAINER + "test_training_learns_predicts_and_its_checkpoint_is_the_products",
    ),
    Row(
        "Trainer with the classes of bigbird_port.integrations.transformers: text and token classification, question "
        "answering, multiple choice, masked and causal language modelling, summaries",
        test=TRAINER + "test_training_learns_predicts_and_its_checkpoint_is_the_products",
    ),
    Row("`Trainer.predict`: the original's numbers", test=TRAINER + "test_predict_gives_the_original_numbers"),
    Row("pipelines: the original's numbers", test=PORTED + "test_a_pipeline_gives_the_original_numbers"),
    Row(
        "pipelines: fill-mask, text and token classification, text generation, features",
        test=PORTED + "test_pipelines_run",
    ),
    Row("pipelines: question answering", test=PORTED + "test_a_pipeline_answers_questions"),
    Row(
        "transformers' `generate` with beams and caches",
        test=PORTED + "test_generate_gives_the_same_with_a_cache_and_without",
    ),
    Row("`generate(streamer=)`", test=GENERATION + "test_a_streamer_hears_every_token"),
    Row(
        "`generate(logits_processor=)`, `generate(stopping_criteria=)`",
        test=GENERATION + "test_logits_processors_and_stopping_criteria_are_asked",
    ),
    Row(
        "`push_to_hub` of the classes of bigbird_port.integrations.transformers",
        "works; tested without a hub",
        test=GENERATION + "test_push_to_hub_sends_the_configuration_and_the_weights",
    ),
    Row(
        "a `datasets.Dataset`: the tokenizer in `map`, collators, Trainer",
        test="tests/integrations/test_datasets.py::test_a_dataset_is_encoded_and_trained_on",
    ),
    Row(
        "Trainer's `gradient_checkpointing_kwargs` with the product's own classes",
        test=TRAINER + "test_training_learns_predicts_and_its_checkpoint_is_the_products",
    ),
    Row(
        "Auto classes",
        "works; under the model types `big_bird_port` and `bigbird_pegasus_port`",
        test=PORTED + "test_auto_classes_find_what_was_saved",
    ),
    Row("PEFT: LoRA, merged", test=TRAINER + "test_adapters_learn_and_merge"),
    Row("accelerate: `device_map`, `prepare`", test=TRAINER + "test_accelerate_places_the_models"),
    Row(
        "`torch.utils.data.DataLoader` with a collator",
        check=lambda s: (
            next(iter(torch.utils.data.DataLoader(rows(s), 2, collate_fn=PaddingCollator(s.tokenizer))))[
                "input_ids"
            ].shape[0]
            == 2
        ),
    ),
]
