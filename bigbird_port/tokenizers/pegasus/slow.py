"""BigBirdPegasusTokenizer: sentencepiece cuts the text, after the original's rules.

Where it differs from transformers' PegasusTokenizer, and why, is told in ``fast``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken

from bigbird_port.tokenizers.added import Token, content_of
from bigbird_port.tokenizers.pegasus.rows import PegasusRows, named_tokens, read_shifted
from bigbird_port.tokenizers.slow import SentencePieceTokenizer
from bigbird_port.tokenizers.special import ADDITIONAL, DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE


class BigBirdPegasusTokenizer(PegasusRows, SentencePieceTokenizer):
    """Tokenizer of documents and summaries on sentencepiece.

    offset: 0, the original's ids, which are the file's own; or plain Pegasus' 103, as in transformers: ``<mask_1>``,
    ``<mask_2>`` and ``<unk_2>`` ... then come before the pieces. substitute_newline: what stands for a newline; None is
    ``<n>`` where the vocabulary has it, and "" leaves newlines. tight_brackets: a blank directly before a bracketed
    word is deleted. end_documents: documents end with ``</s>`` too. bos, sep, cls and mask tokens: None are those that
    the vocabulary has. Other arguments: BigBirdTokenizer's.

    Raises ValueError for a vocabulary that cannot be read, a token it does not have, or an unknown argument.
    """

    def __init__(
        self,
        vocab_file: str | Path,
        pad_token: Token = "<pad>",
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        *,
        offset: int = 0,
        substitute_newline: str | None = None,
        tight_brackets: bool = True,
        end_documents: bool = False,
        sp_model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        vocabulary = read_shifted(vocab_file, offset)
        self._settle(vocabulary.pieces, offset, substitute_newline, tight_brackets, end_documents)
        given = {"pad_token": pad_token, "eos_token": eos_token, "unk_token": unk_token, "bos_token": bos_token}
        given |= {"sep_token": sep_token, "cls_token": cls_token, "mask_token": mask_token}
        tokens = named_tokens(vocabulary.pieces, offset, given, options)
        super().__init__(vocabulary, tokens, sp_model_kwargs, options)

    def _pieces_of(self, text: str, kind: type) -> Iterable[Any]:
        found: list[Any] = self.sp_model.encode(self.rules.before(text), out_type=kind)
        return [number + self.offset for number in found] if kind is int and self.offset else found

    @classmethod
    def _load(cls, path: Path, options: dict[str, Any]) -> Self:
        return cls.of_vocabulary(path / VOCAB_FILE, options)

    @classmethod
    def of_vocabulary(cls, vocabulary: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a SentencePiece file with the settings of a folder; raises ValueError as the class.

        Special tokens that the folder lists as added ones are named alone, where they are pieces.
        """
        found = read_shifted(vocabulary, options.get("offset", 0))
        return cls(vocabulary, **loaded_options(options, found.pieces, found.symbols))


def loaded_options(options: Mapping[str, Any], pieces: Sequence[str], symbols: Collection[str]) -> dict[str, Any]:
    """Return constructor arguments from those of a folder, whose lists name tokens that are pieces as well."""
    own, known = {*symbols, *pieces[: options.get("offset", 0) + 2]}, set(pieces)

    def beyond(token: AddedToken) -> bool:
        attributes = (token.special, token.normalized, token.lstrip, token.rstrip, token.single_word)
        return token.content not in own and (token.content not in known or any(attributes))

    added = {number: token for number, token in options.get("added_tokens_decoder", {}).items() if beyond(token)}
    additional = [token for token in options.get(ADDITIONAL, ()) if beyond(token)]
    named = {name: content_of(options[name]) for name in DEFAULT_TOKENS if name in options}
    kept = {name: value for name, value in options.items() if name != "mask_token_sent"}
    return {**kept, **named, "added_tokens_decoder": added, ADDITIONAL: additional}
