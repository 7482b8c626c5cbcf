"""What was asked for is done, or a line says why it is not: options that have no effect on some heads, or on any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.sparse.pattern import pattern_blocks
from parity.checks.integrity import Check
from parity.given.inputs import BESIDE, DECODER_IDS, QUESTION_LENGTHS
from parity.measure.losses import why_no_loss
from parity.measure.tolerances import MEANINGLESS
from parity.run.conditions import Options, Pass
from parity.run.decoding import TOKENS
from parity.run.results import Error, Result, Row
from parity.witnesses.witness import EXPORTED, FRAMEWORKS

_OF_FRAMEWORKS = "it is of torch and flax alone"


class Part(NamedTuple):
    """A part of a run that an option asks for.

    why_not: says why a head of a family does not have this part on texts of so many tokens; empty where it has it.
    """

    name: str
    option: str
    error: Error
    why_not: Callable[[Family, str, int], str]


def _why_not_decoded(family: Family, head: str, length: int) -> str:
    able = ", ".join(own.name for own in family.heads.values() if own.decodes)
    return "" if family.heads[head].decodes else f"only {able or 'no head'} is run token by token"


def _why_no_loss(family: Family, head: str, length: int) -> str:
    return why_no_loss(family.heads[head], length)


GRADIENTS = Part("gradients", "--gradients", "gradient", _why_no_loss)
DECODING = Part("decoding", "--decoding", "decoding", _why_not_decoded)
LOSS = Part("loss", "losses", "loss", _why_no_loss)


def asked(options: Options) -> list[Part]:
    """Return the parts that are asked for by name; losses are compared without being asked for."""
    return [GRADIENTS] * options.gradients + [DECODING] * options.decoding


def check_asked(heads: Sequence[str], runs: Sequence[Pass], options: Options) -> None:
    """Raise ValueError for a part that is asked for and that no head has, or no witness."""
    for part in asked(options):
        if not set(options.names) & set(FRAMEWORKS):
            raise ValueError(f"{part.option} compares torch or flax, and neither is there: add one to --against")
        family, longest = runs[0].config.family, max(one.condition.length for one in runs)
        reasons = {head: part.why_not(family, head, longest) for head in heads}
        if all(reasons.values()):
            why = "; ".join(f"{head}: {reason}" for head, reason in reasons.items())
            able = [head for head in family.heads if not part.why_not(family, head, longest)]
            choose = f"choose a head with --head: {', '.join(able)}" if able else "choose longer texts"
            raise ValueError(f"{part.option} has nothing to compare: {why}; {choose}")


def left_out(head: str, one: Pass, options: Options) -> Iterator[str]:
    """Yield what is asked for and will not be done for a head, each with the reason in brackets."""
    length, family = one.condition.length, one.config.family
    for part in asked(options):
        if why := part.why_not(family, head, length):
            yield f"{part.name} ({why})"
        elif others := [name for name in options.names if name in ("transformers", *EXPORTED)]:
            yield f"{part.name} of {', '.join(others)} ({_OF_FRAMEWORKS})"
    if options.losses and not family.heads[head].no_loss and (why := LOSS.why_not(family, head, length)):
        yield f"loss ({why})"
    decoded = (
        one.inputs[DECODER_IDS].shape[-1]
        if family.heads[head].inputs == BESIDE and DECODER_IDS in one.inputs
        else length
    )
    if DECODING in asked(options) and family.heads[head].decodes and decoded > TOKENS:
        yield f"decoding beyond {TOKENS} tokens (each step sees all before it)"
    if QUESTION_LENGTHS in one.inputs and family.heads[head].inputs != "question":
        yield f"{QUESTION_LENGTHS} (this head takes none)"
    if (names := _pattern_options(options)) and (why := why_full_attention(one.config.for_head(head), length)):
        yield f"the attention pattern of {' and '.join(names)} ({why})"


def check_done(result: Result, options: Options, family: Family) -> Iterator[Check]:
    """Yield a failed check for each head and condition of which a part was compared neither in full nor excused."""
    parts = asked(options) + [LOSS] * options.losses
    for part in parts:
        compared = {(row.condition, head) for row in result.rows if row.error == part.error for head in row.heads}
        for condition in (one for one in result.conditions if not one.purpose):
            for head in result.heads:
                excused = family.heads[head].no_loss and part is LOSS
                excused = excused or any(x.startswith(f"{part.name} (") for x in result.not_compared.get(head, ()))
                if not excused and (condition.name, head) not in compared:
                    detail = "asked for, but nothing was compared, and nothing says why"
                    yield Check(f"{part.name} of {head}, {condition.name}", False, detail)


def undecided(result: Result) -> Iterator[tuple[str, str]]:
    """Yield (head, what) for taps of which nothing can be said: rounding alone moves them by as much as they are."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in (row for row in result.rows if row.tolerance.rounding >= MEANINGLESS and row.passed):
        for head in row.heads:
            found.setdefault((head, row.error), []).append(row)
    for (head, error), rows in found.items():
        taps = list(dict.fromkeys(row.tap for row in rows))
        more = f" and {len(taps) - 1} more" * (len(taps) > 1)
        yield head, f"{taps[0]}{more}, {error} (rounding alone moves them by as much as they are)"


def why_full_attention(config: BigBirdConfig, length: int) -> str:
    """Say why a model has no pattern on texts of ``length`` tokens; empty where it has one."""
    if config.is_decoder:
        return "a decoder attends to every token before"
    if config.attention_type == "original_full":
        return "the model's attention_type is original_full"
    return "" if pattern_blocks(config, length) else f"full attention stands in for it at {length} tokens"


def _pattern_options(options: Options) -> list[str]:
    """The options that ask for an attention pattern."""
    asked = dict(options.overrides)
    if asked.get("attention_type") == "original_full":
        del asked["attention_type"]
    names = [f"--{name.replace('_', '-')}" for name in asked if name in PATTERN_FIELDS]
    return names + ["--lengths"] * bool(options.lengths)


PATTERN_FIELDS = ("max_encoder_length", "attention_type", "random_blocks")
