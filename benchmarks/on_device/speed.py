"""How fast the base model's layers run on the device, and in how much memory, beside transformers' where it is there.

Both sides have the same weights and random blocks, and their results are compared before anything is timed. A time is
that of a call on inputs that lie on the device, until its result is there: the median of several, in milliseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.on_device.record import is_there
from benchmarks.pairs import make_config, make_ids, peer_config, with_their_blocks

LAYERS, REPEATS = 2, 10
UNTIMED = 2  # the first ones compile, choose kernels, and find memory
# Of texts and tokens. A base model of two layers shows what every further layer costs.
SHAPES = ((1, 4096), (8, 4096), (4, 1024))
SMALL = ((1, 704),)
# The largest difference of two last hidden states, whose elements are about 1; bfloat16 has 8 bits.
LIMITS = {"float32": 1e-3, "bfloat16": 0.2}
Run = Callable[[], Any]
Found = dict[str, Any]


def cases(device: str, small: bool, framework: str) -> Iterator[Found]:
    """Yield the times of forward and of a gradient, for each shape and number type."""
    of = {"torch": _of_torch, "flax": _of_flax}[framework]
    for batch, length in SMALL if small else SHAPES:
        config = with_their_blocks(make_config("tiny" if small else "base", length, 1 if small else LAYERS))
        for dtype in LIMITS:
            ids, mask = make_ids(config, [length] * batch)
            what = f"{framework}, {dtype}, {batch} x {length}"
            try:
                yield {"what": what, **of(config, ids, mask, dtype, device, 1 if small else REPEATS)}
            except RuntimeError as error:  # out of memory, or what the device refuses: the next shape may run
                yield {"what": what, "passed": False, "value": str(error)[:500]}


def _of_torch(config: Any, ids: np.ndarray, mask: np.ndarray, dtype: str, device: str, repeats: int) -> Found:
    import torch

    import models_torch

    ours = models_torch.BigBirdModel.from_config(config, 0).eval()
    peer, without = _peer(config, ours)
    models = {"ours": ours} | ({"peer": peer} if peer is not None else {})
    on, found, results = torch.device(device), dict[str, Any](), {}
    inputs = [torch.from_numpy(x).to(on) for x in (ids, mask)]
    torch.set_float32_matmul_precision("highest")
    for name, model in models.items():
        model.to(on, getattr(torch, dtype))

        def forward(model: Any = model) -> Any:
            with torch.no_grad():
                return model(*inputs).last_hidden_state

        def gradient(model: Any = model) -> Any:
            model.zero_grad(set_to_none=True)
            loss = model(*inputs).last_hidden_state.float().square().mean()
            loss.backward()
            return loss

        results[name] = forward().float().cpu().numpy()
        for kind, run in (("forward", forward), ("gradient", gradient)):
            if on.type == "cuda":
                torch.cuda.empty_cache()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                run()
                found[f"{name}_{kind}_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
            synchronize = torch.cuda.synchronize if on.type == "cuda" else lambda: None
            found[f"{name}_{kind}_ms"] = _median(run, lambda _, wait=synchronize: wait(), repeats)
        model.to("cpu")
    return _judged(found, results, dtype, without)


def _peer(config: Any, ours: Any) -> tuple[Any, str]:
    """transformers' torch model with our weights, or why there is none: it is not installed, or it has changed."""
    if not is_there("transformers"):
        return None, "transformers is not installed"
    try:
        import transformers

        peer = transformers.BigBirdModel(peer_config(config)).eval()
        peer.load_state_dict(ours.state_dict())
    except Exception as error:  # another release may have any other class, name or argument
        return None, f"transformers' model was not made: {type(error).__name__}: {str(error)[:200]}"
    return peer, ""


def _of_flax(config: Any, ids: np.ndarray, mask: np.ndarray, dtype: str, device: str, repeats: int) -> Found:
    import jax
    from jax import numpy as jnp

    import models_flax
    from parity.witnesses.devices import flax_device

    on, found = flax_device(device), dict[str, Any]()
    model = models_flax.FlaxBigBirdModel(config, dtype=jnp.dtype(dtype), _do_init=False)
    params = jax.device_put(models_flax.FlaxBigBirdModel.from_config(config, 0).params, on)
    inputs = [jax.device_put(x.astype(np.int32), on) for x in (ids, mask)]

    def forward(params: Any, ids: Any, mask: Any) -> Any:
        return model(ids, mask, params=params).last_hidden_state

    def loss(params: Any, ids: Any, mask: Any) -> Any:
        return jnp.square(forward(params, ids, mask).astype(jnp.float32)).mean()

    results: dict[str, np.ndarray] = {}
    with jax.default_device(on), jax.default_matmul_precision("highest"):
        for kind, function in (("forward", forward), ("gradient", jax.grad(loss))):
            program = jax.jit(function).lower(params, *inputs).compile()
            memory = program.memory_analysis()
            found[f"ours_{kind}_mib"] = getattr(memory, "temp_size_in_bytes", float("nan")) / 2**20
            found[f"ours_{kind}_ms"] = _median(lambda run=program: run(params, *inputs), jax.block_until_ready, repeats)
            if kind == "forward":
                results["ours"] = np.asarray(program(params, *inputs)).astype(np.float32)
    peer, without = None, "torch is not installed"
    if is_there("torch"):
        import torch

        import models_torch

        peer, without = _peer(config, models_torch.BigBirdModel.from_config(config, 0))
    if peer is not None:  # its Flax classes are gone in release 5: its torch model on the CPU, for the first text
        with torch.no_grad():
            output = peer(torch.from_numpy(ids[:1]), torch.from_numpy(mask[:1]))
        results["peer"] = output.last_hidden_state.numpy()
    return _judged(found, results, dtype, without)


def _median(run: Run, wait: Callable[[Any], object], repeats: int) -> float:
    """Milliseconds of a call until its result is there."""
    times = []
    for _ in range(UNTIMED + repeats):
        start = time.perf_counter()
        wait(run())
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[UNTIMED:])


def _judged(found: Found, results: dict[str, np.ndarray], dtype: str, without: str) -> Found:
    """The figures, and whether both sides computed the same; None where there is no other side."""
    texts = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    if "peer" not in results:
        return {"passed": None, "value": f"{texts}; not compared: {without}", "figures": found}
    ours, peer = results["ours"], results["peer"]
    difference = float(np.abs(ours[: len(peer)] - peer).max())
    return {
        "passed": difference <= LIMITS[dtype],
        "value": f"{texts}; largest difference {difference:.2g}, expected at most {LIMITS[dtype]:g}",
        "figures": found | {"difference": difference},
    }
