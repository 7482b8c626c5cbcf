"""The Flax twin of BigBird-Pegasus as a witness: its own modules, each compiled once.

A coupled model's parameters are put into the places of the decoder that share them, so that each stage has its own.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.families.family import Step
from bigbird_port.schema.weights import from_framework
from parity.given.inputs import DECODER_IDS, Inputs
from parity.witnesses import with_flax as base
from parity.witnesses.pegasus.flax_backward import compiled_gradient
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import Gradients, Setting, Taps
from parity.witnesses.written import Written

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, eq=False)
class Stream:
    """x [B, L or T, D]; encoder: its output, while the decoder attends to it.

    ids, decoder_ids: what both sides read; ids is None for a decoder alone. mask [B, L]: of the encoder's tokens.
    """

    x: Array
    ids: Array | None
    decoder_ids: Array
    mask: Array | None
    encoder: Array | None = None

    def fed(self, x: Array) -> Stream:
        """Return the stream with hidden states, behind the encoder's where they are as many as both sides have."""
        L = 0 if self.ids is None else self.ids.shape[1]
        if not L or x.shape[1] != L + self.decoder_ids.shape[1]:
            return replace(self, x=x, encoder=None)
        return replace(self, x=x[:, L:], encoder=x[:, :L])


class FlaxWitness(base.FlaxWitness):
    """A model of models_flax and its parameters."""

    def __init__(self, model: Any, setting: Setting, device: Any) -> None:
        super().__init__(model, setting, device)
        self._apart: tuple[Any, Any] = (None, None)

    @property
    def stages(self) -> Any:
        """The base model's parameters, those of each stage in its place."""
        if self._apart[0] is not self.params:  # other words, or the first time
            from models_flax.pegasus.coupled import expanded

            own = self.params.get("model", self.params)
            coupled = self.config.couple_encoder_decoder
            self._apart = self.params, expanded({"params": own})["params"] if coupled else own
        return self._apart[1]

    def start(self, inputs: Inputs) -> tuple[Taps, Any]:
        """Run the embeddings of the encoder, or of a decoder alone."""
        from jax import numpy as jnp

        from models_flax.pegasus.losses import decoder_inputs

        with self.scope():
            given = {name: jnp.asarray(x) for name, x in inputs.items()}
            ids = given["input_ids"]
            if not self.config.is_encoder_decoder:
                return self._embed(Stream(ids, None, ids, None), "decoder", ids)
            mask = given.get("attention_mask", ids != self.config.pad_token_id) != 0
            read = given.get(DECODER_IDS)
            if read is None:
                read = decoder_inputs(ids, self.config.replace(loss_style="transformers"))
            return self._embed(Stream(ids, ids, read, mask), "encoder", ids)

    def step(self, step: Step, stream: Any) -> tuple[Taps, Any]:
        """Run a stage."""
        side, _, part = step.stage.name.partition(".")
        with self.scope():
            if part == "embeddings":
                return self._embed(replace(stream, encoder=stream.x), side, stream.decoder_ids)
            if part == "output":
                return self._output(stream, side)
            params = self.stages[side]["layers"][str(step.index)]
            run = compiled_layer(self.config, self.dtype, side)
            if side == "encoder":
                from models_flax.bigbird.encoder import encoder_lists

                lists = encoder_lists(self.config, step.index, stream.x.shape[1])
                x, taps = run(params, stream.x, stream.mask, lists)
            else:
                x, taps = run(params, stream.x, stream.encoder, None if stream.encoder is None else stream.mask)
            return {f"{step.name}.{name}": tap for name, tap in self._arrays(taps).items()}, replace(stream, x=x)

    def finish(self, stream: Any, positions: slice | None = None) -> Taps:
        """Run the head."""
        with self.scope():
            x = stream.x if positions is None else stream.x[:, positions]
            return self._arrays(self._scores(x, stream.ids))

    def call_base(self, inputs: Inputs) -> Any:
        """Call the base model, or the decoder alone."""
        from flax import linen as nn
        from jax import numpy as jnp

        with self.scope():
            arrays, ids = {name: jnp.asarray(x) for name, x in inputs.items()}, jnp.asarray(inputs["input_ids"])
            if self.config.is_encoder_decoder:
                output = nn.apply(_call_base, self.module)({"params": self.params}, arrays)
                return Stream(output.last_hidden_state, ids, ids, None)
            x = nn.apply(_call_decoder, self.module)({"params": self.params}, arrays).last_hidden_state
            return Stream(x, None, ids, None)

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Put hidden states in, rounded to the model's dtype."""
        import jax
        from jax import numpy as jnp

        with self.scope():
            return stream.fed(jax.device_put(x.astype(jnp.dtype(self.dtype)), self.device))

    def hidden(self, stream: Any) -> np.ndarray:
        """Return what the next stage reads."""
        return np.concatenate([np.asarray(x) for x in (stream.encoder, stream.x) if x is not None], axis=1)

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients of the loss by jax.grad; a tap's is that of a zero added to it."""
        from flax.traverse_util import flatten_dict
        from jax import numpy as jnp

        taps = run_whole(self, inputs).taps
        with self.scope():
            zeros = {name: jnp.zeros(tap.shape, tap.dtype) for name, tap in taps.items()}
            arrays = {name: jnp.asarray(x) for name, x in inputs.items()}
            targets = {name: jnp.asarray(base.narrowed(x, self._wide)) for name, x in labels.items()}
            value, (found, of_taps) = compiled_gradient(self.module, self.head)(self.params, zeros, arrays, targets)
        weights = {name: np.asarray(x) for name, x in flatten_dict(found, sep="/").items()}
        canonical = from_framework(weights, self.config, self.head, "flax", any_pooler=True)
        return Gradients(float(value), canonical, self._arrays(of_taps))

    def decode(self, inputs: Inputs) -> np.ndarray:
        """Return the scores [B, T, V] of the decoder's tokens one after the other; the text is encoded once."""
        from jax import numpy as jnp

        from models_flax.pegasus.cache import init_cache

        with self.scope():
            given = {name: jnp.asarray(x) for name, x in inputs.items()}
            tokens, beside = given["input_ids"], {}
            if self.config.is_encoder_decoder:
                tokens, text = given[DECODER_IDS], given["input_ids"]
                mask = given.get("attention_mask", text != self.config.pad_token_id)
                beside = {"encoder_outputs": self.model.encode(text, mask).to_tuple(), "attention_mask": mask}
            past: Any = init_cache(self.config, len(tokens), tokens.shape[1], jnp.dtype(self.dtype))
            step, found = compiled_step(self.module), []
            for i in range(tokens.shape[1]):
                output = step(self.params, tokens[:, i : i + 1], past, beside)
                past = output.past_key_values
                found.append(np.asarray(output.logits))
        return np.concatenate(found, axis=1)

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Written:
        """Return what is written: greedily with one beam, else by the original's search."""
        given = {name: x for name, x in inputs.items() if name != DECODER_IDS}
        with self.scope():
            if beams == 1:
                return Written(np.asarray(self.model.generate(**given, max_length=T)))
            found: Any = self.model.generate(**given, max_length=T, num_beams=beams, alpha=alpha, return_beams=True)
            return Written(np.asarray(found.ids), np.asarray(found.scores))

    def _embed(self, stream: Stream, side: str, ids: Array) -> tuple[Taps, Stream]:
        norm = self.stages[side]["layernorm_embedding"]
        run = compiled_embeddings(self.config, self.dtype, side)
        x, taps = run(self.stages["shared"], self.stages["embed_positions"], norm, ids)
        return self._arrays(taps), replace(stream, x=x)

    def _output(self, stream: Stream, side: str) -> tuple[Taps, Stream]:
        x = stream.x
        if self.config.norm_type == "prenorm":
            x = compiled_norm(self.config, self.dtype)(self.stages[side]["layernorm_embedding"], x)
        return {f"{side}.output": np.asarray(x)}, replace(stream, x=x, encoder=None)

    def _scores(self, x: Array, ids: Array | None) -> dict[str, Any]:
        if not self.config.is_encoder_decoder:
            return {"logits": compiled_logits(self.config, self.dtype)(self.stages["shared"], x)}
        if self.head == self.config.family.base:
            return {}
        from flax import linen as nn

        found: dict[str, Any] = nn.apply(_score, self.module)({"params": self.params}, x, ids)
        return found


def _call_base(module: Any, arrays: dict[str, Any]) -> Any:
    return getattr(module, "model", module)(**arrays)


def _call_decoder(module: Any, arrays: dict[str, Any]) -> Any:
    from models_flax.pegasus.inputs import DecoderArrays
    from models_flax.pegasus.model import run_decoder

    own, given = module.model, DecoderArrays(arrays["input_ids"], mask=arrays.get("attention_mask"))
    return run_decoder(own.decoder, own.shared, own.embed_positions, given, (), "")


def _score(module: Any, x: Any, ids: Any) -> Any:
    from models_flax.pegasus.outputs import BigBirdPegasusModelOutput

    return module.score(BigBirdPegasusModelOutput(last_hidden_state=x), ids, True)


def _jnp_dtype(dtype: str) -> Any:
    from jax import numpy as jnp

    return jnp.dtype(dtype)


@functools.lru_cache(maxsize=64)
def compiled_embeddings(config: Any, dtype: str, side: str) -> Any:
    """The sum of embeddings as a function of both tables, a LayerNorm's parameters and ids."""
    import jax
    from flax import linen as nn

    from models_flax.pegasus.layer import layer_norm
    from models_flax.pegasus.stacks import embedded, first_norm

    def run(words: Any, positions: Any, norm: Any, ids: Any) -> Any:
        def table(rows: int) -> Any:
            return nn.Embed(rows, config.d_model, dtype=_jnp_dtype(dtype))

        places = jax.numpy.arange(ids.shape[1])
        own = (
            table(config.vocab_size).apply({"params": words}, ids),
            table(config.max_position_embeddings).apply({"params": positions}, places)[None],
        )
        normal = functools.partial(layer_norm(config, _jnp_dtype(dtype)).apply, {"params": norm})
        return first_norm(config, normal, embedded(config, *own), lambda x, deterministic: x, side, True)

    return jax.jit(run, compiler_options=base.quickly(config))


@functools.lru_cache(maxsize=64)
def compiled_norm(config: Any, dtype: str) -> Any:
    """A LayerNorm as a function of its parameters and x."""
    import jax

    from models_flax.pegasus.layer import layer_norm

    norm = layer_norm(config, _jnp_dtype(dtype))
    return jax.jit(lambda params, x: norm.apply({"params": params}, x), compiler_options=base.quickly(config))


@functools.lru_cache(maxsize=64)
def compiled_layer(config: Any, dtype: str, side: str) -> Any:
    """A layer as a function of its parameters, x and what its side wants beside it; one program for all of a shape."""
    import jax
    from jax import numpy as jnp

    from models_flax.pegasus.layer import BigBirdPegasusDecoderLayer, BigBirdPegasusEncoderLayer

    if side == "encoder":
        encoder = BigBirdPegasusEncoderLayer(config, _jnp_dtype(dtype))
        return jax.jit(
            lambda params, x, mask, lists: encoder.apply({"params": params}, x, mask, lists),
            compiler_options=base.quickly(config),
        )
    decoder = BigBirdPegasusDecoderLayer(config, _jnp_dtype(dtype))

    def run(params: Any, x: Any, states: Any, mask: Any) -> Any:
        return decoder.apply({"params": params}, x, jnp.ones(x.shape[:2], bool), states, mask)[:2]

    return jax.jit(run, compiler_options=base.quickly(config))


@functools.lru_cache(maxsize=64)
def compiled_logits(config: Any, dtype: str) -> Any:
    """The output layer of a decoder alone: the table of words."""
    import jax
    from flax import linen as nn

    words = nn.Embed(config.vocab_size, config.d_model, dtype=_jnp_dtype(dtype))
    run = functools.partial(words.apply, method="attend")
    return jax.jit(lambda params, x: run({"params": params}, x), compiler_options=base.quickly(config))


@functools.lru_cache(maxsize=64)
def compiled_step(module: Any) -> Any:
    """A call with one token and a cache."""
    import jax

    name = DECODER_IDS if module.config.is_encoder_decoder else "input_ids"

    def run(params: Any, token: Any, past: Any, beside: dict[str, Any]) -> Any:
        return module.apply({"params": params}, **{name: token}, **beside, past_key_values=past)

    return jax.jit(run, compiler_options=base.quickly(module.config))
