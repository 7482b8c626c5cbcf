"""How summaries are searched for: the arguments of generate, checked and settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What transformers' generate takes where nothing is said, of the arguments that the original does not have.
DEFAULTS: Mapping[str, Any] = {
    "length_penalty": 1.0,
    "early_stopping": False,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
STYLES = ("original", "transformers")


@dataclass(frozen=True)
class Search:
    """A search: T is how many tokens are written at most, without the start id.

    style: whose search it is. alpha: the original's length penalty. All others are transformers' arguments; min_length
    counts the start id, as there.
    """

    style: str
    T: int
    num_beams: int
    alpha: float
    length_penalty: float
    early_stopping: bool | str
    no_repeat_ngram_size: int
    min_length: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float

    def divisor(self, length: int) -> float:
        """What transformers divides the sum of a summary of ``length`` tokens by."""
        return float(length**self.length_penalty)


def settle(
    config: Any,
    num_beams: int,
    beam_style: str | None,
    max_length: int | None,
    max_new_tokens: int | None,
    alpha: float | None,
    given: Mapping[str, Any],
) -> Search:
    """Return the search that the arguments of generate ask for; ``given`` are transformers', None where left out.

    Raises ValueError naming the argument that does not fit, what was expected, and what to do.
    """
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"generate has no {', '.join(unknown)}: expected some of {', '.join(DEFAULTS)}")
    named = {name: value for name, value in given.items() if value is not None}
    style = beam_style or ("transformers" if named else "original")
    if style not in STYLES:
        raise ValueError(f"beam_style is {beam_style!r}, expected one of {', '.join(map(repr, STYLES))}")
    if style == "original" and named:
        raise ValueError(
            f"beam_style is 'original', which has no {', '.join(named)}: leave them out, or give "
            "beam_style='transformers'"
        )
    if style == "transformers" and alpha is not None:
        raise ValueError(
            "alpha is the original's length penalty, but beam_style is 'transformers': give length_penalty"
        )
    T = _most(config, style, max_length, max_new_tokens)
    if not (_whole(num_beams) and 1 <= 2 * num_beams <= max(2, config.vocab_size)):
        raise ValueError(
            f"num_beams is {num_beams}, expected 1 .. {config.vocab_size // 2}: a search looks at twice as many tokens "
            "of the vocabulary"
        )
    search = Search(style, T, num_beams, 0.8 if alpha is None else float(alpha), **(dict(DEFAULTS) | named))
    _check(search, config)
    return search


def _most(config: Any, style: str, max_length: int | None, max_new_tokens: int | None) -> int:
    """How many tokens are written at most; transformers counts the start id in max_length."""
    if max_length is not None and max_new_tokens is not None:
        raise ValueError("max_length and max_new_tokens were both given: give one of them")
    most, start = config.max_position_embeddings, int(style == "transformers")
    name = "max_length" if max_new_tokens is None else "max_new_tokens"
    given = max_length if max_new_tokens is None else max_new_tokens
    if given is None:
        return int(config.decoder_length)
    start = start if name == "max_length" else 0
    if not (_whole(given) and 1 <= given - start <= most):
        counted = ", the start id counted as in transformers" if start else ""
        raise ValueError(
            f"{name} is {given}, expected {1 + start} .. {most + start} (max_position_embeddings){counted}"
        )
    return given - start


def _check(search: Search, config: Any) -> None:
    rules = {
        "early_stopping": (search.early_stopping in (True, False, "never"), "True, False or 'never'"),
        "no_repeat_ngram_size": (_whole(search.no_repeat_ngram_size), "a whole number, 0 for none"),
        "min_length": (
            _whole(search.min_length) and search.min_length <= search.T + 1,
            f"a whole number of at most {search.T + 1}, the most tokens that there can be with the start id",
        ),
        "do_sample": (isinstance(search.do_sample, bool), "True or False"),
        "temperature": (_number(search.temperature) and search.temperature > 0, "a number above 0"),
        "top_k": (_whole(search.top_k), "a whole number, 0 for every token"),
        "top_p": (_number(search.top_p) and 0 < search.top_p <= 1, "a number above 0 and at most 1"),
        "length_penalty": (_number(search.length_penalty), "a number"),
    }
    for name, (holds, expected) in rules.items():
        if not holds:
            raise ValueError(f"{name} is {getattr(search, name)!r}, expected {expected}")
    if search.do_sample and search.num_beams > 1:
        raise ValueError(f"do_sample=True with num_beams={search.num_beams}: a search does not draw: give num_beams=1")
    unused = [name for name in ("temperature", "top_k", "top_p") if getattr(search, name) != DEFAULTS[name]]
    if unused and not search.do_sample:
        raise ValueError(f"{', '.join(unused)} given, but nothing is drawn: give do_sample=True, or leave them out")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
