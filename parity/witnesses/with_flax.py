"""The Flax twin as a witness: its own modules, compiled once for all layers.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.models.folder import read_folder_config
from bigbird_port.schema.weights import digest, from_framework, to_framework
from parity.given.inputs import Inputs
from parity.measure.losses import scores_dtype, total_loss
from parity.reference.own import own_module
from parity.witnesses.devices import flax_device, host_device
from parity.witnesses.flax_backward import loss_with_zeros
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import Gradients, Setting, Source, Taps

if TYPE_CHECKING:
    from jax import Array


_WORDS = (("word_embeddings", "embedding"), ("shared", "embedding"))
_SMALL = 1 << 20  # numbers in the kernels of all layers, about
# LLVM not optimising, the older of two code generators, and one module rather than 32.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@dataclass(frozen=True, eq=False)
class Stream:
    """x [B, L, D]; inputs: what the encoder wants beside it; beside: what the head wants."""

    x: Array
    inputs: Any
    beside: dict[str, Any]


class FlaxWitness:
    """A model of models_flax and its parameters."""

    name, complete, steps, multiple = "flax", True, True, 1

    def __init__(self, model: Any, setting: Setting, device: Any) -> None:
        """Digest the loaded parameters, then move them to their dtype and device."""
        import jax
        from flax.traverse_util import flatten_dict

        self.config, self.initialised = model.config, model.initialised
        arrays = {name: np.asarray(x) for name, x in flatten_dict(model.params, sep="/").items()}
        canonical = from_framework(arrays, self.config, model.head, "flax", any_pooler=True)
        self._digests = {name: digest(x) for name, x in canonical.items()}
        self.device, self.dtype, self.head, self.module = device, setting.dtype, model.head, model.module
        with self.scope():
            params = jax.tree.map(lambda x: x.astype(self.dtype), model.params) if self._wide else model.params
            self.params = model.params = jax.device_put(params, device)
        self.model = model

    @property
    def _wide(self) -> bool:
        return self.dtype == "float64"  # parameters of the narrower ones stay float32, as in training

    def digests(self) -> dict[str, str]:
        """Return sha256 of every weight as it was loaded, before any change of dtype."""
        return self._digests

    def scale_words(self, factor: float) -> None:
        """Scale the parameter that a tied decoder shares."""
        from flax.traverse_util import flatten_dict, unflatten_dict

        with self.scope():
            params = flatten_dict(self.params)
            (words,) = (path for path in params if path[-2:] in _WORDS)
            self.params = self.model.params = unflatten_dict(params | {words: params[words] * factor})

    def start(self, inputs: Inputs) -> tuple[Taps, Stream]:
        """Run the embeddings."""
        with self.scope():
            arrays, beside = self._split_inputs(inputs)
            x, completed, taps = _compiled(_embed, self._base())(self.params.get("bert", self.params), arrays)
        return self._arrays(taps), Stream(x, completed, beside)

    def _base(self) -> Any:
        """The base model's module, which is compiled once for the heads of one configuration."""
        family = self.config.family
        return family.model_class(family.base, "flax").module_class(self.config, dtype=self.module.dtype)

    def step(self, step: Step, stream: Stream) -> tuple[Taps, Stream]:
        """Run a layer, or in prenorm the LayerNorm behind the last one."""
        from models_flax.bigbird.encoder import encoder_lists

        if step.number is None:
            with self.scope():
                x = _compiled(_last_norm, self._base())(self.params.get("bert", self.params), stream.x)
            return self._arrays({step.output: x}), replace(stream, x=x)
        params = self.params.get("bert", self.params)["encoder"]["layer"][str(step.index)]
        with self.scope():
            lists = encoder_lists(self.config, step.index, stream.x.shape[1])
            run = _compiled_layer(self.config, self.dtype)
            x, taps = run(params, stream.x, stream.inputs.mask, lists)
        return {f"{step.name}.{name}": tap for name, tap in self._arrays(taps).items()}, replace(stream, x=x)

    def finish(self, stream: Stream, positions: slice | None = None) -> Taps:
        """Run the pooler and the head."""
        fixed = tuple((name, x) for name, x in stream.beside.items() if isinstance(x, tuple))
        beside = {name: x for name, x in stream.beside.items() if not isinstance(x, tuple)}
        with self.scope():
            x = stream.x if positions is None else stream.x[:, positions]
            scores, taps = _compiled(_finish, self.module, fixed)(self.params, x, beside)
        return self._arrays(taps | scores)

    def call(self, inputs: Inputs) -> Taps:
        """Return what the whole model returns."""
        with self.scope():
            output = self._call(inputs)
        return {
            field.name: np.asarray(x) for field in fields(output) if hasattr(x := getattr(output, field.name), "dtype")
        }

    def _call(self, inputs: Inputs) -> Any:
        return self.model(**inputs)

    def call_base(self, inputs: Inputs) -> Stream:
        """Call the base model."""
        from flax import linen as nn

        with self.scope():
            arrays, beside = self._split_inputs(inputs)
            output = nn.apply(_call_base, self.module)({"params": self.params}, arrays)
        return Stream(output.last_hidden_state, None, beside)

    def inject(self, stream: Stream, x: np.ndarray) -> Stream:
        """Put hidden states in, rounded to the model's dtype."""
        import jax
        from jax import numpy as jnp

        with self.scope():  # put where a layer's own output is: jax compiles anew for what has no place of its own
            return replace(stream, x=jax.device_put(x.astype(jnp.dtype(self.dtype)), self.device))

    def hidden(self, stream: Stream) -> np.ndarray:
        """Return the hidden states."""
        return np.asarray(stream.x)

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss by models_flax.losses."""
        from jax import numpy as jnp

        with self.scope():
            dtype = scores_dtype(self.config.family.heads[self.head], self.dtype)
            arrays = {name: jnp.asarray(x, dtype) for name, x in scores.items()}
            targets = {name: jnp.asarray(narrowed(x, self._wide)) for name, x in labels.items()}
            return float(_compiled_loss(self.config, self.head)(arrays, targets))

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients of the loss by jax.grad; a tap's is that of a zero added to it."""
        from flax.traverse_util import flatten_dict
        from jax import numpy as jnp

        taps = run_whole(self, inputs).taps
        with self.scope():
            zeros = {name: jnp.zeros(tap.shape, tap.dtype) for name, tap in taps.items()}
            arrays, beside = self._split_inputs(inputs)
            targets = {name: jnp.asarray(narrowed(x, self._wide)) for name, x in labels.items()}
            fixed = tuple((name, x) for name, x in beside.items() if isinstance(x, tuple))
            beside = {name: x for name, x in beside.items() if not isinstance(x, tuple)}
            run = _compiled_gradient(self.module, self.head, fixed)
            value, (found, of_taps) = run(self.params, zeros, arrays, beside, targets)
        weights = {name: np.asarray(x) for name, x in flatten_dict(found, sep="/").items()}
        canonical = from_framework(weights, self.config, self.head, "flax", any_pooler=True)
        return Gradients(float(value), canonical, self._arrays(of_taps))

    def decode(self, inputs: Inputs) -> np.ndarray:
        """Return the scores [B, L, V] of one token after the other, each given the cache of those before."""
        import jax
        from jax import numpy as jnp

        from models_flax.bigbird.cache import init_cache

        ids = inputs["input_ids"]
        step = jax.jit(lambda params, token, past: self.module.apply({"params": params}, token, past_key_values=past))
        found = []
        with self.scope():
            past: Any = init_cache(self.config, ids.shape[0], ids.shape[1], jnp.dtype(self.dtype))
            for i in range(ids.shape[1]):
                output = step(self.params, jnp.asarray(ids[:, i : i + 1]), past)
                past = output.past_key_values
                found.append(np.asarray(output.logits))
        return np.concatenate(found, axis=1)

    def _split_inputs(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        """The base model's arrays, and what the head wants; most heads want nothing."""
        from jax import numpy as jnp

        arrays = {name: jnp.asarray(x) for name, x in inputs.items()}
        split: tuple[dict[str, Any], dict[str, Any]] = (
            self.module.split_inputs(arrays) if hasattr(self.module, "split_inputs") else (arrays, {})
        )
        return split

    def _arrays(self, arrays: dict[str, Any]) -> Taps:
        """Arrays by name, in the order in which they are computed, scores last: jax sorts what a program returns."""
        names = sorted(arrays, key=self.config.family.order)
        return {name: np.asarray(arrays[name]) for name in names if arrays[name] is not None}

    def scope(self) -> ExitStack:
        """The device, full matmul precision and, for float64, wide types; all put back afterwards."""
        import jax

        stack = ExitStack()
        stack.enter_context(jax.default_device(self.device))
        stack.enter_context(jax.default_matmul_precision("highest"))
        if self._wide:
            stack.enter_context(_wide_types())
        return stack


def load(source: Source, setting: Setting) -> FlaxWitness:
    """Load the Flax model of a head; raises ValueError as from_pretrained."""
    device = flax_device(setting.device)
    return _own(load_model(source, setting, device), setting, device)


def make(config: BigBirdConfig, head: str, weights: Mapping[str, np.ndarray], setting: Setting) -> FlaxWitness:
    """Build the Flax model of a head from canonical weights."""
    import jax

    device, cls = flax_device(setting.device), config.family.model_class(head, "flax")
    with jax.default_device(host_device(device)):
        model = cls(config, dtype=jax.numpy.dtype(setting.dtype), _do_init=False)
        model.load_arrays(to_framework(weights, config, head, "flax"))
    return _own(model, setting, device)


def _own(model: Any, setting: Setting, device: Any) -> FlaxWitness:
    """The witness of the model's family."""
    found: FlaxWitness = own_module(sys.modules[__name__], model.config.family).FlaxWitness(model, setting, device)
    return found


def load_model(source: Source, setting: Setting, device: Any) -> Any:
    """Return the Flax model of a head for a device, still on the CPU if jax has it; raises as from_pretrained."""
    import jax

    cls = read_folder_config(source.folder, "flax").family.model_class(source.head, "flax")
    with jax.default_device(host_device(device)), ExitStack() as stack:
        if setting.dtype == "float64":
            stack.enter_context(_wide_types())
        return cls.from_pretrained(source.folder, init_seed=source.init_seed, dtype=setting.dtype, **source.overrides)


def _wide_types() -> Any:
    """A context in which jax has float64."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # releases before 0.8


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any], module: Any, fixed: tuple[tuple[str, Any], ...] = ()) -> Any:
    """``function`` of a module bound to parameters, compiled; ``fixed``: named arguments that are no arrays."""
    import jax
    from flax import linen as nn

    def run(params: Any, *arrays: Any) -> Any:
        return nn.apply(functools.partial(function, **dict(fixed)), module)({"params": params}, *arrays)

    return jax.jit(run, compiler_options=quickly(module.config))


def quickly(config: BigBirdConfig) -> dict[str, Any] | None:
    """Return XLA's options for a program that runs a few times: one of a small model takes longer to compile.

    Not optimised, it is compiled in a third of the time. Whole calls (FlaxWitness.call) are compiled as users do it.
    """
    import jax

    size = config.num_hidden_layers * config.hidden_size * config.intermediate_size
    return _quick_options() if size < _SMALL and jax.default_backend() == "cpu" else None


@functools.cache
def _quick_options() -> dict[str, Any]:
    """Those of the options that this XLA knows, because their names change from release to release."""
    import jax

    known = {}
    for name, value in QUICK.items():
        try:
            jax.jit(jax.numpy.negative, compiler_options={name: value}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known


@functools.lru_cache(maxsize=64)
def _compiled_layer(config: BigBirdConfig, dtype: str) -> Any:
    """A layer as a function of its parameters, x, mask and key lists; one program for all layers of a shape."""
    import jax

    from models_flax.bigbird.layer import BigBirdLayer

    layer = BigBirdLayer(config, np.dtype(dtype) if dtype != "bfloat16" else jax.numpy.bfloat16)
    run = functools.partial(_apply_layer, layer)
    return jax.jit(run, compiler_options=quickly(config))


@functools.lru_cache(maxsize=64)
def _compiled_loss(config: BigBirdConfig, head: str) -> Any:
    """A head's loss as a function of scores and labels."""
    import jax

    from models_flax import losses

    return jax.jit(functools.partial(total_loss, losses, config, head), compiler_options=quickly(config))


@functools.lru_cache(maxsize=64)
def _compiled_gradient(module: Any, head: str, fixed: tuple[tuple[str, Any], ...]) -> Any:
    """The loss and its gradients by parameters and by what is added to taps; ``fixed``: as for _compiled."""
    import jax
    from flax import linen as nn

    def loss(params: Any, zeros: Any, arrays: Any, beside: Any, labels: Any) -> Any:
        given = arrays, beside | dict(fixed)
        run = functools.partial(loss_with_zeros, head=head, zeros=zeros, arrays=given, labels=labels)
        return nn.apply(run, module)({"params": params})

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=quickly(module.config))


def _apply_layer(layer: Any, params: Any, *arrays: Any) -> Any:
    return layer.apply({"params": params}, *arrays)


def _embed(module: Any, arrays: dict[str, Any]) -> Any:
    return module.embed(**arrays)


def _last_norm(module: Any, x: Any) -> Any:
    return module.encoder.LayerNorm(x)


def _call_base(module: Any, arrays: dict[str, Any]) -> Any:
    return getattr(module, "bert", module)(**arrays)


def _finish(module: Any, x: Any, beside: dict[str, Any], **fixed: Any) -> Any:
    return module.score(x, getattr(module, "bert", module).pool(x), **beside, **fixed)


def narrowed(x: np.ndarray, wide: bool) -> np.ndarray:
    """jax without wide types has int32 only."""
    return x if wide or x.dtype.kind == "f" else x.astype(np.int32)
