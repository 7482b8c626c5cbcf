"""Programs that convert exported as witnesses: what users of another runtime see.

A program is run as a whole. It has what a call of the model returns: the scores, or of the base model its last hidden
state, which is the last stage's output.

Legend: B batch, L length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.exports import Export, find_exports
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.families.registry import read_config
from parity.exports.running import Run, open_program
from parity.given.inputs import Inputs
from parity.reference.losses import loss_terms
from parity.witnesses.witness import Setting, Source, Taps

FOLDERS = {"onnx": ("onnx",), "exported": ("stablehlo", "saved-model")}  # by witness, those that it reads


class ExportedWitness:
    """A program of one head. It has what a call returns, and runs no layer on another input."""

    complete, steps, multiple = False, False, 1

    def __init__(self, name: str, export: Export, config: BigBirdConfig, run: Run) -> None:
        """config: for the program's head."""
        self.name, self.export, self.config, self._run = name, export, config, run
        self.initialised = list[str]()
        self._own = config.family.heads[export.head]

    def digests(self) -> dict[str, str]:
        """Return nothing: a program's weights are its own."""
        return {}

    def scale_words(self, factor: float) -> None:
        """Raise, because a program's weights are its own."""
        raise ValueError(f"the witness {self.name} cannot change a program's weights: leave it out of --against")

    def start(self, inputs: Inputs) -> tuple[Taps, Taps]:
        """Run the whole program; the stream holds what it returned."""
        L = inputs["input_ids"].shape[-1]
        found = self._run(self._fitting(self._completed(inputs)))
        return {}, {name: self._cut(name, x, L) for name, x in found.items()}

    def step(self, step: Step, stream: Taps) -> tuple[Taps, Taps]:
        """Return the last stage's output, where the program returns it."""
        family = self.config.family
        is_last = step.output == family.steps(self.config)[-2].output
        taps = {step.output: stream[family.hidden]} if is_last and family.hidden in stream else {}
        return taps, stream

    def finish(self, stream: Taps, positions: slice | None = None) -> Taps:
        """Return the scores; raises ValueError where the program lacks one."""
        if missing := sorted(set(self._own.returned) - set(stream)):
            raise ValueError(f"the program of the witness {self.name} returns no {', '.join(missing)}")
        taps = {tap.name: stream[tap.name] for tap in self._own.taps if tap.name in stream}
        if positions is None:
            return taps
        return {name: x[:, positions] if self._has_tokens(name) else x for name, x in taps.items()}

    def inject(self, stream: Taps, x: np.ndarray) -> Any:
        """Raise, because a program is run as a whole."""
        raise NotImplementedError("a program runs no layer")

    def hidden(self, stream: Taps) -> np.ndarray:
        """Raise, because a program is run as a whole."""
        raise NotImplementedError("a program runs no layer")

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss of the program's scores by its definition, in float64; a program takes no labels."""
        exact = {name: x.astype(np.float64) for name, x in scores.items()}
        return sum(term.value for term in loss_terms(self.config, self.export.head, exact, labels).values())

    def _completed(self, inputs: Inputs) -> Inputs:
        """Add what a call of the model adds by itself: the mask, and types, which a program must be given."""
        if beside := sorted(set(inputs) - set(self.export.inputs)):
            raise ValueError(
                f"the program of the witness {self.name} takes {', '.join(self.export.inputs)}: leave out "
                f"{', '.join(beside)}, or leave {self.name} out of --against"
            )
        ids = inputs["input_ids"]
        types = np.zeros_like(ids)
        if self._own.inputs == "question" and self.config.type_vocab_size > 1:
            ends_B = (ids == self.config.sep_token_id).argmax(axis=1)  # without a separator only the first token is it
            types = (np.arange(ids.shape[1]) > ends_B[:, None]).astype(ids.dtype)
        mask = (ids != self.config.pad_token_id).astype(ids.dtype)
        completed = {"attention_mask": mask, "token_type_ids": types} | inputs
        return {name: np.broadcast_to(x, ids.shape) for name, x in completed.items()}

    def _fitting(self, inputs: Inputs) -> Inputs:
        """Pad texts to the program's length; raises ValueError for those that are longer, or have another pattern."""
        L, length = inputs["input_ids"].shape[-1], self.export.length
        if length in (None, L) and self.export.longest >= L:
            return inputs
        follows = self.export.pattern_length is None or self.config.max_encoder_length is not None
        if (length or self.export.longest) < L or not follows:
            raise ValueError(
                f"the program of the witness {self.name} takes texts of {length or self.export.longest} tokens, not "
                f"{L}: give --length {length or self.export.longest}, or convert again with --length {L}"
            )
        filled = dict.fromkeys(inputs, 0) | {"input_ids": self.config.pad_token_id}
        wide = [(0, 0)] * (inputs["input_ids"].ndim - 1) + [(0, int(length or L) - L)]
        return {name: np.pad(x, wide, constant_values=filled[name]) for name, x in inputs.items()}

    def _cut(self, name: str, x: np.ndarray, L: int) -> np.ndarray:
        """Drop what a program returned for padding of its own."""
        return x[:, :L] if self._has_tokens(name) else x

    def _has_tokens(self, name: str) -> bool:
        place = self.config.family.place(name, self.export.head)
        return name == self.config.family.hidden or (place is not None and place.tap.has_tokens)


def load_exported(name: str, source: Source, setting: Setting) -> ExportedWitness:
    """Load the witness of a program in what convert wrote; raises ValueError where there is none that fits."""
    folder, export = find_program(source.folder, name)
    if export.head != source.head:
        raise ValueError(
            f"{folder}: it is a program of {export.head}, and {source.head} was asked for: choose --head {export.head}"
        )
    if export.dtype != setting.dtype:
        raise ValueError(f"{folder}: it computes in {export.dtype}: give --dtype {export.dtype}")
    own: Any = read_config(folder / "config.json").for_head(export.head)
    changed = own.replace(**source.overrides)
    if changed != own:
        raise ValueError(
            f"{folder}: its attention pattern was fixed by convert: leave out {', '.join(source.overrides)} (options "
            f"of the pattern, or --lengths), or leave {name} out of --against"
        )
    return ExportedWitness(name, export, own, open_program(folder, export))


def find_program(out: Path, name: str) -> tuple[Path, Export]:
    """Return the folder and the record of the program that a witness reads; raises ValueError where there is none."""
    found = find_exports(out)
    for folder in FOLDERS[name]:
        if folder in found:
            return (out / folder if (out / folder).is_dir() else out), found[folder]
    raise ValueError(
        f"{out}: there is no {' or '.join(FOLDERS[name])} in it for the witness {name}: run 'bigbird-port convert "
        f"SOURCE OUT --to torch,flax,{FOLDERS[name][0]} --head HEAD'"
    )


def load(source: Source, setting: Setting) -> ExportedWitness:
    """Load the program of jax.export, or the SavedModel where that alone is there."""
    return load_exported("exported", source, setting)
