"""The tokenizers pipeline that cuts text as sentencepiece does, built from a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from bigbird_port.tokenizers.vocabulary import SPACE, Vocabulary

# What normalisers, rules for spaces and unknown characters take differently.
HARD = (
    "",
    " ",
    "a",
    "A b  c   d ",
    "  two  spaces  ",
    "tab\there\nline\r\nend\u2028 \u2029\u0085",
    "\u00a0no\u00a0break\u3000wide\u2003em\u200bzero\ufeff",
    "\u2581a \u2581\u2581b",
    "e\u0301 e\u0301\u0323 a\u0308\u0304 \u0301alone n\u0303o",
    "\uff41\u0327 \uff43\u0301 \uff42\uff45\u0300\u0301",
    "\u00e9 \u00c5 \u212b \u00fc \u1e9b\u0323 \u0130 \u00df",
    "\ufb01 \ufb02 \u0132 \u01c4 \u2122 \u33a5 \u2460 \u00bd \u00b2 \u2026 \u2025",
    "\uff21\uff22\uff43 \uff11\uff12 \uff0c\uff01 \uff76\uff9e\uff77 \uff8a\uff9f",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \u1100\u1161",
    "\u65e5\u672c\u8a9e \u4f60\u597d \u8d85\u2f00",
    "\u0645\u0631\u062d\u0628\u0627 \ufefb \ufdfa",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e33",
    "\u0442\u0435\u0441\u0442 \u0439\u0438\u0306 \u0451",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3",
    "\x00\x01\x08 \x1b\x7f\x9f soft\u00adhyphen \u200d \u202e",
    "it's \u201cquoted\u201d \u2018so\u2019 \u2013 \u2014 ~ \uff5e \u301c",
    "1,000.50 50% http://a.b/c?d=e x@y.z",
    "unknownunknownunknown zzzzqqqqxxxx",
    "\U0001d400\U0001d401 \U0001f130 \u24b6 \u3300",
    "<s> </s> <pad> <unk> [CLS] [SEP] [MASK] <0x41>",
)


def build_pipeline(
    vocabulary: Vocabulary, rules: Sequence[normalizers.Normalizer] = (), as_text: Collection[str] = ()
) -> Tokenizer:
    """Return the pipeline of a vocabulary, without added tokens and without a template for them.

    rules: what is done to a text first. as_text: pieces that are cut as any other text where a text has them.

    Raises ValueError for a vocabulary of another kind; ``check_same`` tells whether it is cut as by sentencepiece.
    """
    if not vocabulary.plain:
        raise ValueError(
            f"{vocabulary.path}: is no unigram model, has byte pieces or has other rules for spaces than the "
            "original's vocabularies, which the tokenizers library does not follow: use BigBirdTokenizer (or "
            "BigBirdPegasusTokenizer)"
        )
    scored = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    pipeline = Tokenizer(models.Unigram(scored, unk_id=vocabulary.unk_id, byte_fallback=False))
    pipeline.normalizer = _normalizer(rules, vocabulary.charsmap)
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(
        [*_user_defined(vocabulary), *_cut_open(vocabulary, as_text), _words(vocabulary)]
    )
    pipeline.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return pipeline


def check_same(
    pipeline: Tokenizer, vocabulary: Vocabulary, added: Collection[str], expected: Callable[[str], list[int] | None]
) -> None:
    """Raise ValueError where the pipeline gives other ids than sentencepiece for text between added tokens.

    added: the tokens that will be found before the pipeline comes to them.
    expected: sentencepiece's ids of a text; None where the pipeline does not have to give them.
    """
    between = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))
    for text in (part for whole in _texts(vocabulary) for part in (between.split(whole) if added else [whole])):
        ours, theirs = pipeline.encode(text, add_special_tokens=False).ids, expected(text)
        if theirs is not None and ours != theirs:
            raise ValueError(
                f"{vocabulary.path}: the tokenizers library cuts {text!r} otherwise than sentencepiece ({ours[:8]}, "
                f"not {theirs[:8]}), because it follows the vocabulary's normaliser or scores in part: "
                "use BigBirdTokenizer (or BigBirdPegasusTokenizer)"
            )


def _texts(vocabulary: Vocabulary) -> Iterator[str]:
    yield from HARD
    yield from (f"x {text}{text.strip()} y" for text in HARD)
    for piece in vocabulary.symbols:
        yield from (piece, f"a{piece}b {piece}")
    words = [piece.replace(SPACE, " ") for piece in vocabulary.pieces[:: max(1, len(vocabulary.pieces) // 400)]]
    yield from ("".join(words[start : start + 20]) for start in range(0, len(words), 20))


def _normalizer(rules: Sequence[normalizers.Normalizer], charsmap: bytes) -> normalizers.Normalizer:
    spaces = [
        normalizers.Prepend(" "),
        normalizers.Replace(Regex(" +"), SPACE),
        normalizers.Replace(Regex(rf"{SPACE}+\z"), ""),
    ]
    return normalizers.Sequence([*rules, *([normalizers.Precompiled(charsmap)] if charsmap else []), *spaces])


def _user_defined(vocabulary: Vocabulary) -> list[pre_tokenizers.PreTokenizer]:
    if not vocabulary.user_defined:
        return []
    longest_first = sorted(vocabulary.user_defined, key=len, reverse=True)
    return [pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")]


def _cut_open(vocabulary: Vocabulary, symbols: Collection[str]) -> list[pre_tokenizers.PreTokenizer]:
    """Within these pieces a word ends, so that the library does not find them whole."""
    places = ((symbol, _seam(vocabulary, symbol)) for symbol in symbols if len(symbol) > 1)
    found = "|".join(f"{re.escape(symbol[:place])}(?={re.escape(symbol[place:])})" for symbol, place in places)
    return [pre_tokenizers.Split(Regex(found), "merged_with_previous")] if found else []


def _seam(vocabulary: Vocabulary, symbol: str) -> int:
    """Where no other piece reaches over, and no run of unknown characters, which is one token; else the first place."""
    pieces = set(vocabulary.pieces)
    others = pieces.difference(vocabulary.symbols)
    for place in range(1, len(symbol)):
        beside = symbol[place - 1 : place + 1]
        if not pieces.isdisjoint(beside) and not any(beside in piece for piece in others):
            return place
    return 1


def _words(vocabulary: Vocabulary) -> pre_tokenizers.PreTokenizer:
    # A word starts at every space, except where a piece of the vocabulary reaches over one.
    inner = {
        (piece[:place], piece[place + 1 :])
        for piece in vocabulary.pieces
        for place in range(1, len(piece))
        if piece[place] == SPACE
    }
    reached = "|".join(f"(?<={re.escape(left)}){SPACE}{re.escape(right)}" for left, right in sorted(inner))
    return pre_tokenizers.Split(Regex(f"(?!{reached}){SPACE}" if reached else SPACE), "merged_with_next")
