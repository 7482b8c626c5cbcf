"""What people hand to transformers' generate beside a prompt, and push_to_hub without a hub."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from bigbird_port.integrations import transformers as ported  # noqa: E402
from tests.integrations.small import CONFIGS, ids  # noqa: E402

pytestmark = pytest.mark.peer
ASKED = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def writer():
    torch.manual_seed(3)
    config = ported.PortedBigBirdConfig(**CONFIGS["bigbird"].replace().to_dict())
    return ported.PortedBigBirdForCausalLM(config).eval()


class Listening(transformers.generation.streamers.BaseStreamer):
    """Keeps what it is given."""

    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


class Forbidding(transformers.LogitsProcessor):
    """Takes words out of the choice."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.tokens] = -float("inf")
        return scores


def test_a_streamer_hears_every_token(writer):
    heard, prompt = Listening(), ids(1, 9)
    written = writer.generate(prompt, streamer=heard, **ASKED)
    assert heard.tokens == written[0].tolist()
    assert heard.ended


@pytest.mark.parametrize("beams", [1, 2])
def test_logits_processors_and_stopping_criteria_are_asked(writer, beams):
    prompt = ids(1, 9)
    plain = writer.generate(prompt, num_beams=beams, **ASKED)[0, 9:].tolist()
    other = writer.generate(prompt, num_beams=beams, logits_processor=[Forbidding(plain)], **ASKED)[0, 9:].tolist()
    assert len(other) == 5
    assert not set(other) & set(plain)


def test_stopping_criteria_end_it(writer):
    stop = [lambda input_ids, scores, **more: torch.full((len(input_ids),), input_ids.shape[1] >= 11)]
    criteria = transformers.StoppingCriteriaList(stop)
    assert writer.generate(ids(1, 9), stopping_criteria=criteria, **ASKED).shape == (1, 11)


def test_push_to_hub_sends_the_configuration_and_the_weights(writer, monkeypatch):
    sent = {}

    def create_commit(repo_id, operations, **more):
        sent[repo_id] = {item.path_in_repo: Path(item.path_or_fileobj).stat().st_size for item in operations}
        return SimpleNamespace(commit_url="x", pr_url=None)

    for name, stands_in in {
        "create_repo": lambda repo_id, **more: SimpleNamespace(repo_id=f"me/{repo_id}"),
        "create_commit": create_commit,
    }.items():
        monkeypatch.setattr(f"transformers.utils.hub.{name}", stands_in)
    writer.push_to_hub("small")
    (names,) = sent.values()
    assert {"config.json", "model.safetensors"} <= names.keys() <= {
        "config.json", "model.safetensors", "generation_config.json", "README.md"
    }  # fmt: skip
    assert all(names.values())
