"""Parity of BigBird-Pegasus: every head passes, what is wrong is red, and golden cases are the original's word."""

import json

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.pegasus.heads import HEADS
from parity.given.golden import read_golden
from parity.run.conditions import Options
from parity.run.run import run_parity
from tests.conftest import GOLDEN, require

SHORT = {"max_encoder_length": 40}
TAPS = ("encoder.layer.1.context", "decoder.layer.1.self_context", "decoder.layer.1.cross_context", "decoder.output")


def failed(result):
    return {(row.error, row.tap) for row in result.rows if not row.passed}


@pytest.fixture(scope="module")
def found(converted):
    """Every head on short texts, in torch, with gradients, decoding and writing."""
    options = Options(witnesses=("torch", "reference"), length=40, overrides=SHORT, gradients=True, decoding=True)
    return run_parity(converted("mini-pegasus"), tuple(HEADS), options)


def test_every_head_passes(found):
    assert failed(found) == set()
    assert found.passed
    assert found.heads == list(HEADS)
    errors = {head: {row.error for row in found.rows if head in row.heads} for head in HEADS}
    assert errors["base"] == {"accumulated", "local", "called"}
    for head in ("sequence-classification", "qa"):
        assert errors[head] == {"accumulated", "local", "called", "loss", "gradient"}
    for head in ("conditional-generation", "causal-lm"):
        assert errors[head] == {"accumulated", "local", "called", "loss", "gradient", "decoding"}


def test_stages_and_taps_of_both_sides_are_compared(found):
    taps = {head: {row.tap for row in found.rows if head in row.heads} for head in HEADS}
    for head in ("base", "conditional-generation", "sequence-classification", "qa"):
        assert taps[head] >= {*TAPS, "encoder.embeddings", "encoder.output", "decoder.embeddings"}
        assert taps[head] >= {f"decoder.layer.0.cross_{part}" for part in ("query", "key", "value", "output")}
    assert taps["conditional-generation"] >= {"ids", "beams", "beam_scores", "logits", "loss"}
    assert "grad.decoder.layer.0.attention.encdec.key.kernel" in taps["conditional-generation"]
    assert "grad.decoder.layer.0.cross_value" in taps["conditional-generation"]
    alone = taps["causal-lm"]
    assert not [tap for tap in alone if "cross" in tap or tap.removeprefix("grad.").startswith("encoder.")]
    assert alone >= {"decoder.embeddings", "decoder.layer.1.self_context", "decoder.output", "logits"}


def test_flax_has_the_same_taps(converted):
    options = Options(length=40, overrides=SHORT)
    result = run_parity(converted("mini-pegasus"), ("conditional-generation",), options)
    assert failed(result) == set()
    assert result.passed
    taps = {pair: {row.tap for row in result.rows if (row.value, row.reference) == pair and row.error == "accumulated"}
            for pair in (("torch", "reference"), ("flax", "reference"), ("flax", "torch"))}  # fmt: skip
    assert len(set(map(frozenset, taps.values()))) == 1
    assert len(taps["torch", "reference"]) > 60


@pytest.mark.slow
def test_a_coupled_model_has_no_decoder_alone_and_says_so(converted, tmp_path):
    require(GOLDEN["tiny-coupled"])
    arguments = ["--length", "40", "--max-encoder-length", "40", "--against", "torch,reference", "--gradients"]
    run = CliRunner().invoke(
        main, ["parity", str(converted("tiny-coupled")), *arguments, "--json", str(tmp_path / "found.json")]
    )
    assert run.exit_code == 0, run.output
    values = json.loads((tmp_path / "found.json").read_text())
    assert values["heads"] == [head for head in HEADS if head != "causal-lm"]
    assert "causal-lm: not compared: all of it (couple_encoder_decoder: a coupled model has no decoder" in run.output
    refused = CliRunner().invoke(main, ["parity", str(converted("tiny-coupled")), "--head", "causal-lm"])
    assert refused.exit_code == 2
    assert "a coupled model has no decoder alone" in refused.output


@pytest.mark.parametrize(
    ("name", "stem"),
    [("mini-pegasus", "len528-general-plan-padded"), ("tiny-coupled", "len400-full"), ("tiny-pegasus", "len448-full")],
)
@pytest.mark.quick("mini-pegasus-len528-general-plan-padded")
def test_golden_cases_are_witnesses(converted, name, stem):
    (path,) = [path for path in require(GOLDEN[name]).cases if path.stem == stem]
    options = Options(golden=read_golden(path), witnesses=("torch", "reference"), local=False)
    result = run_parity(converted(name), (options.golden.head,), options)
    assert failed(result) == set()
    assert result.passed
    original = {row.tap for row in result.rows if row.reference == "original" and row.value == "torch"}
    assert original >= {"encoder.output", "decoder.output", "logits", "loss", "loss_no_smoothing", "target_log_probs"}
    assert original >= {"ids", "beams", "beam_scores"}
    left = result.not_compared["conditional-generation"]
    assert not [x for x in left if not x.endswith(".log_probs") and not x.startswith("grad.")]


def test_another_model_is_red_against_the_original(converted):
    """The negative control: another eps than the original's, which only a golden case can see."""
    (path,) = [path for path in GOLDEN["mini-pegasus"].cases if "padded" in path.stem]
    options = Options(
        golden=read_golden(path), witnesses=("torch", "reference"), local=False, overrides={"layer_norm_eps": 1e-5}
    )
    result = run_parity(converted("mini-pegasus"), ("conditional-generation",), options)
    assert {row.reference for row in result.rows if not row.passed} == {"original"}
    assert "encoder.layer.0.attention_output" in {row.tap for row in result.rows if not row.passed}


@pytest.mark.slow
@pytest.mark.peer
def test_transformers_leaves_the_original_at_its_eps_and_at_its_random_blocks(converted):
    """With full attention only its eps is off; longer texts have other random blocks."""
    pytest.importorskip("transformers")
    options = Options(witnesses=("transformers", "reference"), lengths=(160, 528), batch=1, local=False)
    result = run_parity(converted("mini-pegasus"), ("conditional-generation",), options)
    errors = {(row.condition, row.tap): row.difference.relative for row in result.rows}
    assert {row.tap for row in result.rows} >= {*TAPS, "encoder.embeddings", "decoder.embeddings", "logits"}
    assert errors["1x160", "encoder.embeddings"] < 1e-6
    assert 1e-6 < errors["1x160", "encoder.layer.0.self_layer_norm"] < 1e-3
    assert errors["1x160", "logits"] < 1e-3
    assert errors["1x528", "encoder.layer.0.context"] > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "masked-lm"], "BigBird-Pegasus has no head 'masked-lm'"),
        (["--decoding", "--head", "qa"], "--decoding has nothing to compare: qa: only conditional-generation"),
        (["--inputs", "types.json"], "token_type_ids: no input of a BigBird-Pegasus model"),
    ],
)
def test_what_does_not_fit_is_named(converted, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "types.json").write_text(json.dumps({"input_ids": [[3, 4]], "token_type_ids": [[0, 0]]}))
    run = CliRunner().invoke(main, ["parity", str(converted("mini-pegasus")), *arguments, "--no-conditions"])
    assert run.exit_code == 2
    assert message in run.output
