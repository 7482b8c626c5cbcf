"""What people run all day: training steps, short texts, writing token by token, and cutting text into tokens.

Both sides begin with the same weights. A loss, hidden states or ids are compared before anything is timed. A step is
one of masked words, of which a text has 15 %, with AdamW and no dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import Measured, check_equal, compare_and_time, times_in_turn
from benchmarks.pairs import make_config, make_ids, model_run, peer_config, with_their_blocks
from benchmarks.report import Row

TITLE = "training steps, short texts, writing, tokens"
MASKED = 0.15
_STEP, _FORWARD = {"what": "step", "width": "base", "layers": 2}, {"what": "forward", "width": "base", "layers": 12}
CASES: list[dict[str, Any]] = [
    {"framework": "torch", **_STEP, "length": 1024},
    {"framework": "torch", **_STEP, "length": 4096},
    {"framework": "flax", **_STEP, "length": 1024},
    {"framework": "flax", **_STEP, "length": 4096},
    {"framework": "torch", **_FORWARD, "length": 1024, "batch": 1},
    {"framework": "torch", **_FORWARD, "length": 1024, "batch": 4},
    {"framework": "torch", "what": "generate", "width": "base", "layers": 4, "length": 64, "batch": 4},
    {"framework": "tokenizers", "what": "tokenizer", "width": "base", "length": 4096, "batch": 1000},
]
_TINY = {"width": "tiny", "layers": 1}
QUICK: list[dict[str, Any]] = [
    {"framework": "torch", "what": "step", **_TINY, "length": 704},
    {"framework": "flax", "what": "step", **_TINY, "length": 704},
    {"framework": "torch", "what": "forward", **_TINY, "length": 704, "batch": 2},
    {"framework": "torch", "what": "generate", **_TINY, "length": 20, "batch": 2},
    {"framework": "tokenizers", "what": "tokenizer", "width": "tiny", "length": 64, "batch": 4},
]
# goals: transformers' time over ours, by what, framework, length and batch
FASTER = {
    ("step", "torch", 1024, 1): 1.35,
    ("step", "torch", 4096, 1): 1.9,
    ("step", "flax", 1024, 1): 1.2,
    ("step", "flax", 4096, 1): 1.7,
    ("forward", "torch", 1024, 1): 1.4,
    ("forward", "torch", 1024, 4): 1.8,
    ("generate", "torch", 64, 4): 2.5,
    ("tokenizer", "tokenizers", 4096, 1000): 1.0,
}
NAMES = {
    "step": "training step, {layers} layers, {length} tokens, {framework}",
    "forward": "base model forward, {length} tokens, batch {batch}, {framework}",
    "generate": "{length} tokens after {length} others, {layers} layers, batch {batch}, {framework}",
    "tokenizer": "{batch} texts of about {length} tokens, the fast tokenizer",
}
Step = Callable[[], float]


def rows(results: Sequence[Measured]) -> list[Row]:
    """One row for each case."""
    made = []
    for result in results:
        key = result["what"], result["framework"], result["length"], result.get("batch", 1)
        goal = FASTER.get(key) if result["width"] == "base" else None
        name = NAMES[result["what"]].format(**result)
        made.append(Row(name, "s", result["peer_ms"] / 1e3, result["ours_ms"] / 1e3, goal))
    return made


def measure(what: str, framework: str, width: str, repeats: int, **sizes: int) -> list[Measured]:
    """Measure one of CASES."""
    run = {
        ("step", "torch"): _torch_step,
        ("step", "flax"): _flax_step,
        ("forward", "torch"): _torch_forward,
        ("generate", "torch"): _torch_generate,
        ("tokenizer", "tokenizers"): _tokenizer,
    }[what, framework]
    return [{"what": what, "framework": framework, "width": width, **sizes, **run(width, repeats, **sizes)}]


def _masked(vocabulary: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a text, and labels at some of its words."""
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(5, vocabulary, (1, length)), np.full((1, length), -100)
    some = rng.permutation(length)[: int(MASKED * length)]
    labels[0, some] = rng.integers(5, vocabulary, len(some))
    return ids, labels


def _torch_step(width: str, repeats: int, layers: int, length: int) -> Measured:
    import torch
    from transformers import BigBirdForMaskedLM as Peer

    from models_torch import BigBirdForMaskedLM

    torch.set_num_threads(1)
    config = make_config(width, length, layers).replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ids, labels = (torch.from_numpy(x) for x in _masked(config.vocab_size, length))

    def step_of(model: Any) -> Step:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)

        def step() -> float:
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step

    def ours(config: Any) -> Any:
        return BigBirdForMaskedLM.from_config(config, seed=0).train()

    peer = Peer(peer_config(config))
    peer.load_state_dict(ours(config).state_dict(), strict=False)  # tied weights
    theirs = step_of(peer.eval())  # without dropout; in training it would draw other blocks in each step
    equal = step_of(ours(with_their_blocks(config)))
    for step in ("first", "second"):
        check_equal(f"loss of the {step} step", [np.asarray(equal())], [np.asarray(theirs())])
    mine = step_of(ours(config))
    mine()
    return times_in_turn({"peer": theirs, "ours": mine}, repeats, warm=False)


def _flax_step(width: str, repeats: int, layers: int, length: int) -> Measured:
    import jax
    import optax
    from jax import numpy as jnp
    from transformers import FlaxBigBirdForMaskedLM as Peer

    from models_flax import FlaxBigBirdForMaskedLM

    config = make_config(width, length, layers)
    ids, labels = (jnp.asarray(x, jnp.int32) for x in _masked(config.vocab_size, length))
    mask, optimizer = jnp.ones_like(ids), optax.adamw(1e-5)

    def step_of(model: Any) -> Step:
        def loss(params: Any) -> Any:
            logits = model(input_ids=ids, attention_mask=mask, params=params, train=False).logits
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels.clip(0))
            return (losses * (labels >= 0)).sum() / (labels >= 0).sum()

        def update(params: Any, state: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(params)
            changes, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, changes), state, value

        compiled = jax.jit(update, donate_argnums=(0, 1))
        params = jax.tree.map(jnp.array, model.params)
        held: dict[str, Any] = {"params": params, "state": optimizer.init(params)}

        def step() -> float:
            held["params"], held["state"], value = jax.block_until_ready(compiled(held["params"], held["state"]))
            return float(value)

        return step

    mine = FlaxBigBirdForMaskedLM.from_config(config, seed=0)
    peer = Peer(peer_config(config), input_shape=(1, length))
    peer.params = _as_theirs(mine, peer)
    theirs = step_of(peer)
    equal = step_of(FlaxBigBirdForMaskedLM.from_config(with_their_blocks(config), seed=0))
    for step in ("first", "second"):
        check_equal(f"loss of the {step} step", [np.asarray(equal())], [np.asarray(theirs())])
    ours = step_of(mine)
    ours()
    return times_in_turn({"peer": theirs, "ours": ours}, repeats, warm=False)


def _as_theirs(ours: Any, peer: Any) -> Any:
    """Our parameters under transformers' names, which are the same but for what it has and we do not."""
    from flax.traverse_util import flatten_dict, unflatten_dict

    own, theirs = flatten_dict(ours.params), flatten_dict(peer.params)
    return unflatten_dict({name: own.get(name, x) for name, x in theirs.items()})


def _torch_forward(width: str, repeats: int, layers: int, length: int, batch: int) -> Measured:
    config = make_config(width, length, layers)
    ids, mask = make_ids(config, [length] * batch)

    def of(side: str, config: Any) -> Callable[[], list[np.ndarray]]:
        run = model_run("torch", side, config, ids, mask)
        return lambda: [run()]

    equal = {"ours": of("ours", with_their_blocks(config))}
    timed = {"ours": of("ours", config)}
    return compare_and_time(f"{batch} texts of {length}", of("peer", config), equal, timed, repeats)


def _torch_generate(width: str, repeats: int, layers: int, length: int, batch: int) -> Measured:
    import torch
    from transformers import BigBirdForCausalLM as Peer

    from models_torch import BigBirdForCausalLM

    torch.set_num_threads(1)
    config = make_config(width, 2 * length, layers).replace(is_decoder=True, attention_type="original_full")
    ours = BigBirdForCausalLM.from_config(config, seed=0).eval()
    peer = Peer(peer_config(config)).eval()
    peer.load_state_dict(ours.state_dict(), strict=False)
    ids = torch.from_numpy(np.random.default_rng(0).integers(100, config.vocab_size, (batch, length)))
    asked = {"max_new_tokens": length, "do_sample": False}

    def theirs() -> list[np.ndarray]:
        mask = torch.ones_like(ids)
        found = peer.generate(ids, attention_mask=mask, eos_token_id=None, pad_token_id=0, **asked)
        return [found.numpy()]

    def mine() -> list[np.ndarray]:
        return [ours.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=-1, **asked).numpy()]

    return compare_and_time("the ids written", theirs, {"ours": mine}, {"ours": mine}, repeats)


def _tokenizer(width: str, repeats: int, length: int, batch: int) -> Measured:
    """Both read one folder, whose vocabulary is trained on the words that the texts are drawn from."""
    import random
    import tempfile
    from pathlib import Path

    from transformers import BigBirdTokenizerFast as Peer

    from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast
    from tests.tokenizers.tokenizer_corpus import WORDS
    from tests.vocabulary import train_vocabulary

    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=length // 2)) for _ in range(batch)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder, "spiece.model")
        vocabulary.write_bytes(train_vocabulary())
        BigBirdTokenizer(vocabulary).save_pretrained(folder)
        ours, peer = (kind.from_pretrained(folder) for kind in (BigBirdTokenizerFast, Peer))

    def run(tokenizer: Any) -> Callable[[], list[np.ndarray]]:
        asked = {"truncation": True, "max_length": length, "padding": "max_length", "return_tensors": "np"}
        return lambda: [tokenizer(texts, **asked)["input_ids"]]

    return compare_and_time("ids", run(peer), {"ours": run(ours)}, {"ours": run(ours)}, repeats)
