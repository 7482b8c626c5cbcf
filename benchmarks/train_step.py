"""One training step of the base model, and the optimizers alone: transformers' model with torch's AdamW, and ours.

Both sides begin with the same weights, and take one text without dropout. The losses are compared before anything is
timed. Memory is the most that was resident during the timed steps, in a process of its own for each side, beyond the
interpreter with its frameworks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import Measured, check_equal, forget_peak, peak_mib, resident_mib, run_alone, times_in_turn
from benchmarks.pairs import make_config, peer_config, with_their_blocks
from benchmarks.report import Row

Step = Callable[[], float]
TITLE = "training step of the base model, batch 1; the optimizers alone"
LENGTH = 1024
_BASE = {"width": "base", "layers": 12, "length": LENGTH}
CASES: list[dict[str, Any]] = [
    {"framework": "torch", "what": "step", **_BASE},
    {"framework": "torch", "what": "optimizer", **_BASE},
    {"framework": "flax", "what": "optimizer", **_BASE},
]
QUICK: list[dict[str, Any]] = [{**case, "width": "tiny", "layers": 1, "length": 704} for case in CASES]
FASTER, LIGHTER, NEAR = 1.3, 0.8, 1.1  # goals: times faster, parts of the memory, parts of an optimizer's time
MASKED = 75  # of a text of 1024 tokens, as the original predicts
SIDES = {"ours": "scores of masked words", "whole": "scores of all words"}  # loss_style "original" and "transformers"
NAMES = {"torch": "torch.optim.AdamW(foreach=True)", "flax": "optax.adamw"}


def rows(results: Sequence[Measured]) -> list[Row]:
    """Time and memory of a step; each optimizer beside the framework's own."""
    made = []
    for result in results:
        goals = result["length"] == LENGTH
        if result["what"] == "step":
            for side, name in SIDES.items():
                what = f"training step, base model, batch 1, {result['length']}, torch, {name}"
                peer, ours = ([result[f"{each}_{unit}"] for unit in ("ms", "mib")] for each in ("peer", side))
                made.append(Row(what, "ms", peer[0], ours[0], FASTER if goals else None))
                made.append(Row(f"{what}: peak", "MiB", peer[1], ours[1], 1 / LIGHTER if goals else None))
        else:
            what = f"optimizer alone, base model: {NAMES[result['framework']]} and AdamWeightDecay"
            made.append(Row(what, "ms", result["peer_ms"], result["ours_ms"], 1 / NEAR if goals else None))
    return made


def measure(framework: str, what: str, width: str, layers: int, length: int, repeats: int) -> list[Measured]:
    """Measure one of CASES."""
    run = _step if what == "step" else {"torch": _torch_optimizers, "flax": _optax_optimizers}[framework]
    case = {"framework": framework, "what": what, "width": width, "layers": layers, "length": length}
    return [case | run(width, layers, length, repeats)]


def _step(width: str, layers: int, length: int, repeats: int) -> Measured:
    """All sides' times in turn; the memory of each in a process of its own."""
    case: dict[str, Any] = {"width": width, "layers": layers, "length": length}
    peer, model = _side("peer", **case)
    expected = _first(peer, model)
    for side in SIDES:
        found = _first(*_side(side, **case, theirs=True))
        scales = 1.0, max(float(np.abs(expected[1]).max()), 1e-30)
        pair = ([x / scale for x, scale in zip(arrays, scales, strict=True)] for arrays in (found, expected))
        check_equal(f"first loss and gradient of the positions, {side}", *pair)
    timed = {side: _side(side, **case)[0] for side in SIDES}
    for run in timed.values():
        run()
    measured = times_in_turn({"peer": peer, **timed}, repeats, warm=False)
    alone = {side: run_alone("benchmarks.train_step:memory", side=side, **case) for side in ("peer", *SIDES)}
    return measured | {f"{side}_mib": found for side, found in alone.items()}


def _first(step: Step, model: Any) -> list[np.ndarray]:
    """The loss of a first step, and the gradient of the table of positions, each row of which is one token's."""
    loss = step()
    gradient = model.get_parameter("bert.embeddings.position_embeddings.weight").grad
    return [np.asarray(loss), gradient.numpy().copy()]


def memory(side: str, width: str, layers: int, length: int) -> float:
    """The most that is resident while a side takes a step, beyond what is imported."""
    import torch  # noqa: F401
    from transformers.models.big_bird import modeling_big_bird  # noqa: F401

    import models_torch.training  # noqa: F401

    before = resident_mib()
    step, _ = _side(side, width, layers, length)
    step()
    forget_peak()
    step()
    return peak_mib() - before


def _side(side: str, width: str, layers: int, length: int, theirs: bool = False) -> tuple[Step, Any]:
    """Return what takes one step of a side and returns its loss, and its model. theirs: transformers' random blocks."""
    import torch

    from models_torch import BigBirdForPreTraining

    torch.set_num_threads(1)
    config = make_config(width, length, layers).replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch = _batch(config.vocab_size, length)
    if side != "peer":
        model: Any = BigBirdForPreTraining.from_config(with_their_blocks(config) if theirs else config, seed=0)
        return _our_step(model.train(), batch, "original" if side == "ours" else "transformers"), model
    from transformers import BigBirdForPreTraining as Peer

    peer = Peer(peer_config(config))
    peer.load_state_dict(BigBirdForPreTraining.from_config(config, seed=0).state_dict(), strict=False)  # tied weights
    return _their_step(peer.eval(), batch), peer  # without dropout; in training it would draw other blocks in each step


def _batch(vocabulary: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = max(1, MASKED * length // LENGTH)
    return {
        "input_ids": rng.integers(5, vocabulary, (1, length)),
        "masked_lm_positions": np.sort(rng.choice(length, (1, count), replace=False)),
        "masked_lm_ids": rng.integers(5, vocabulary, (1, count)),
        "masked_lm_weights": np.ones((1, count), np.float32),
        "next_sentence_labels": np.zeros((1, 1), np.int64),
    }


def _our_step(model: Any, batch: dict[str, np.ndarray], style: str) -> Step:
    """A step as a run takes it, from a state that is fresh."""
    from models_torch.training import AdamWeightDecay
    from models_torch.training.batches import sorted_batch
    from models_torch.training.losses import batch_loss

    optimizer = AdamWeightDecay(model.parameters(), lr=1e-5)
    given = sorted_batch(batch, model.device, True)

    def step() -> float:
        optimizer.zero_grad()
        loss = batch_loss(model, given, style, 1)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def _their_step(model: Any, batch: dict[str, np.ndarray]) -> Step:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.from_numpy(batch["input_ids"])
    labels = torch.full_like(ids, -100)
    labels.scatter_(1, *(torch.from_numpy(batch[f"masked_lm_{name}"]) for name in ("positions", "ids")))
    sentence = torch.from_numpy(batch["next_sentence_labels"]).flatten()

    def step() -> float:
        optimizer.zero_grad()
        loss = model(ids, labels=labels, next_sentence_label=sentence).loss
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def _shapes(width: str, layers: int, length: int) -> list[tuple[int, ...]]:
    from bigbird_port.schema.table import weights_of

    config = make_config(width, length, layers)
    return [row.shape(config) for row in weights_of(config, "pretraining", "torch")]


def _torch_optimizers(width: str, layers: int, length: int, repeats: int) -> Measured:
    """One update by each, with the same gradients; what they do to the weights differs, as their rules do."""
    import torch

    from models_torch.training import AdamWeightDecay

    torch.set_num_threads(1)

    def made(make: Callable[[list[Any]], Any]) -> Callable[[], object]:
        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in _shapes(width, layers, length)]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        step: Callable[[], object] = make(weights).step
        return step

    sides = {
        "peer": made(lambda weights: torch.optim.AdamW(weights, lr=1e-4, foreach=True)),
        "ours": made(lambda weights: AdamWeightDecay(weights, lr=1e-4)),
    }
    return times_in_turn(sides, repeats * 3)


def _optax_optimizers(width: str, layers: int, length: int, repeats: int) -> Measured:
    import jax
    import optax
    from jax import numpy as jnp

    from models_flax.training import AdamWeightDecay

    shapes = _shapes(width, layers, length)

    def made(optimizer: optax.GradientTransformation) -> Callable[[], object]:
        keys = jax.random.split(jax.random.key(0), len(shapes))
        held = {}
        params = [jnp.zeros(shape) for shape in shapes]
        gradients = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        held["now"] = params, optimizer.init(params)

        @functools.partial(jax.jit, donate_argnums=(1, 2))
        def update(gradients: Any, params: Any, state: Any) -> Any:
            changes, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, changes), state

        def step() -> object:
            held["now"] = jax.block_until_ready(update(gradients, *held["now"]))
            return held["now"]

        return step

    sides = {"peer": made(optax.adamw(1e-4, weight_decay=0.01)), "ours": made(AdamWeightDecay(1e-4))}
    return times_in_turn(sides, repeats * 3)
