"""What a conversion will do, decided from names and shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bigbird_port.conversion.exports import EXPORTS, MADE_FROM, ExportName
from bigbird_port.conversion.source import Source, open_source
from bigbird_port.conversion.targets import TARGETS, Choices, Target, TargetName, plan_target
from bigbird_port.conversion.tokenizer import plan_tokenizer
from bigbird_port.families.configuration import Configuration
from bigbird_port.files.casting import float_type, is_float
from bigbird_port.formats.passed_over import passed_over, passed_over_note
from bigbird_port.formats.tensorflow.locate import find_tokenizer, find_vocabulary, refuse_stand_in, vocabulary_note
from bigbird_port.schema.positions import check_extension, how_extended
from bigbird_port.schema.reading.matching import Match
from bigbird_port.schema.reading.subtree import Wanted
from bigbird_port.schema.table import weights_of
from bigbird_port.training.carried import Asked, Carried, plan_training
from bigbird_port.training.found import state_folder

if TYPE_CHECKING:
    from bigbird_port.tokenizers.files import CarriedTokenizer


@dataclass(frozen=True)
class Settings:
    """How to convert; every field is an option of the command.

    head: head to write; None takes what the source holds. seed: for head weights that it lacks. vocab: a
    SentencePiece file; None takes the one that the flags name or that lies beside the source, if any.
    max_position_embeddings: how many to make of the source's, positions: how (positions.METHODS). checksums:
    without them nothing is hashed or read back, and the output cannot be verified. subtree: which part of the source,
    where several could be meant. ema: take moving averages instead of the weights. training: carry the
    optimizer's state; None leaves it behind, but for that of a run that goes back to the original. drop_unused_biases:
    leave out biases that the model does not read though they are not zero. length: tokens of a text in programs for
    other runtimes; None: any, or where attention is block-sparse those of its pattern.
    """

    to: tuple[TargetName | ExportName, ...] = ("torch", "flax")
    head: str | None = None
    config_file: Path | None = None
    num_attention_heads: int | None = None
    vocab: Path | None = None
    seed: int = 0
    dtype: str = "float32"
    choices: Choices = field(default_factory=Choices)
    allow_nonfinite: bool = False
    checksums: bool = True
    max_position_embeddings: int | None = None
    positions: str = "tile"
    subtree: str | None = None
    ema: bool = False
    training: Asked | None = None
    drop_unused_biases: bool = False
    length: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a conversion will do.

    vocabulary: a SentencePiece file. notes: what was inferred or chosen, in sentences. passed_over: weight files
    beside those that are read. training: the state that is carried. exports: programs that are made of targets.
    passing: targets that nobody asked for, of which programs are made; these are removed afterwards.
    """

    source: Source
    config: Configuration
    head: str
    match: Match
    targets: tuple[Target, ...]
    settings: Settings
    vocabulary: Path | None
    tokenizer: CarriedTokenizer | None
    notes: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    training: Carried | None = None
    exports: tuple[ExportName, ...] = ()
    passing: tuple[TargetName, ...] = ()

    @property
    def kept(self) -> tuple[Target, ...]:
        """The targets that were asked for."""
        return tuple(target for target in self.targets if target.name not in self.passing)

    @property
    def extended(self) -> dict[str, str]:
        """What the manifest says of weights that are made longer than the source's."""
        present = self.source.config.max_position_embeddings
        if self.config.max_position_embeddings == present:
            return {}
        return {self.config.family.positions: how_extended(self.settings.positions, present)}

    @property
    def size(self) -> int:
        """Bytes of values to read."""
        shapes = (row.shape(self.config) for row in weights_of(self.config, self.head, "torch"))
        slots = self.training.size if self.training else 0
        return sum(map(math.prod, shapes)) * float_type(self.settings.dtype).itemsize + slots


def make_plan(source: Path, settings: Settings | None = None) -> Plan:
    """Decide everything a conversion does; raises ValueError as convert does.

    Names and shapes are read, and of values those that must be zero.
    """
    settings = settings or Settings()
    wanted = Wanted(settings.subtree, settings.ema)
    opened = open_source(source, settings.config_file, settings.num_attention_heads, settings.head, wanted)
    config, notes = opened.config, list(opened.notes)
    others = passed_over(source, opened.opened.store.files)
    notes += [passed_over_note(opened.opened.store.files, others)] if others else []
    flags = opened.opened.config_file
    path = opened.opened.path
    vocabulary = settings.vocab or find_vocabulary(path / "any" if path.is_dir() else path, flags)
    if settings.vocab and settings.vocab.is_file():
        refuse_stand_in(settings.vocab, "a SentencePiece vocabulary")
    library = None if vocabulary else find_tokenizer(path)
    if settings.vocab or library:
        notes.append(f"vocabulary from {settings.vocab or library}")
    else:
        notes.append(vocabulary_note(vocabulary, flags))
    head = settings.head or opened.head
    if config != config.for_head(head):
        config = config.for_head(head)
        notes.append(f"{head}: {config.family.heads[head].settings_note}")
    match = opened.match(head, config)
    notes += _dropped(opened, match, settings)
    if settings.max_position_embeddings is not None:
        config = _extended(config, settings, notes)
    dtype = float_type(settings.dtype)
    for name in match.sources.values():
        stored = opened.opened.store.tensors[name]
        if not is_float(stored.dtype):
            found = stored.dtype or stored.type_name
            raise ValueError(f"{opened.opened.path}: {name} is {found}, expected floating-point numbers")
    asked = settings.training or _goes_along(opened, head, settings, notes)
    training = _training(opened, match, config, head, replace(settings, training=asked)) if asked else None
    if training:
        match = replace(match, fates={**match.fates, **training.fates})
        notes += training.notes
    exports = tuple(name for name in EXPORTS if name in settings.to)
    asked_for = tuple(name for name in dict.fromkeys(settings.to) if name in TARGETS)
    passing = tuple(dict.fromkeys(MADE_FROM[name] for name in exports if MADE_FROM[name] not in asked_for))
    targets = tuple(
        plan_target(name, config, head, dtype, settings.choices, training) for name in (*asked_for, *passing)
    )
    tokenizer, said = plan_tokenizer(vocabulary, library, path, settings, opened.config, config, flags)
    notes += said
    if "torch" in settings.to and config.beyond_transformers:
        notes.append(
            f"torch: transformers has no {' and no '.join(config.beyond_transformers)} model of this kind: its classes "
            "refuse this folder by its attention_type, and models_torch loads it"
        )
    if "tf" in settings.to:
        notes += config.family.flags(config, None)[1]
    return Plan(
        *(opened, config, head, match, targets, settings, vocabulary, tokenizer, tuple(notes), tuple(others)),
        training=training,
        exports=exports,
        passing=passing,
    )


def _goes_along(source: Source, head: str, settings: Settings, notes: list[str]) -> Asked | None:
    """A run's state that goes back to the original though nobody asked, or a note that it is left behind."""
    if state_folder(source) is None:
        return None
    changed = settings.dtype != "float32" or settings.max_position_embeddings is not None or head != source.head
    if "tf" in settings.to and not changed:
        return Asked()
    notes.append("the training state beside the weights is left behind: --optimizer carries it")
    return None


def _training(source: Source, match: Match, config: Configuration, head: str, settings: Settings) -> Carried:
    """What is carried of training; raises ValueError where the weights would not be those that were trained."""
    assert settings.training is not None
    for option, changed in (
        (f"--dtype {settings.dtype}", settings.dtype != "float32"),
        ("--max-position-embeddings", config.max_position_embeddings != source.config.max_position_embeddings),
        ("--ema", settings.ema),
    ):
        if changed and not settings.training.fresh:
            raise ValueError(
                f"--optimizer with {option}: the slots belong to the weights as they were trained: leave {option} out, "
                "or begin with fresh slots by --fresh-optimizer"
            )
        if changed and option.startswith("--dtype"):
            raise ValueError(f"--fresh-optimizer with {option}: the original trains in float32: leave {option} out")
    return plan_training(source, match, config, head, settings.training)


def _dropped(source: Source, match: Match, settings: Settings) -> list[str]:
    """What to say of biases that are left out and are not zero; raises ValueError unless that was asked for."""
    store = source.opened.store
    nonzero = [name for name in match.zeros if any(piece.any() for piece in store.pieces(name))]
    if not nonzero:
        return []
    told = f"{len(nonzero)} of {len(match.zeros)} weights that the model does not read are not zero"
    if not settings.drop_unused_biases:
        raise ValueError(
            f"{source.opened.path}: {told}, such as {nonzero[0]} ({match.fates[nonzero[0]].detail}): give the "
            "configuration that reads them by --config FILE, or leave them out with --drop-unused-biases"
        )
    return [f"{told}, and are left out (--drop-unused-biases): {', '.join(nonzero)}"]


def _extended(config: Configuration, settings: Settings, notes: list[str]) -> Configuration:
    """The configuration with more positions; raises ValueError where they cannot be made."""
    present, length = config.max_position_embeddings, settings.max_position_embeddings or 0
    try:
        check_extension(present, length, settings.positions)
    except ValueError as error:
        raise ValueError(f"--max-position-embeddings: {error}") from None
    if length > present:
        notes.append(f"{length} position embeddings from {present} ({settings.positions}): fine-tune before use")
    return config.replace(max_position_embeddings=length)
