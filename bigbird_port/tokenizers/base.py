"""What both tokenizers share: calls, batches, decoding, and saving; subclasses only cut text into pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import tokenizers
from tokenizers import AddedToken, Encoding, processors

from bigbird_port.tokenizers import folder
from bigbird_port.tokenizers.added import Token
from bigbird_port.tokenizers.calls.batch import BatchEncoding, to_tensors
from bigbird_port.tokenizers.calls.inputs import Text, as_batch
from bigbird_port.tokenizers.calls.padding import pad_rows
from bigbird_port.tokenizers.calls.plan import NO_LIMIT, Plan, check_pair_windows, check_room, choice, make_plan
from bigbird_port.tokenizers.calls.text import clean_up, join_pieces, join_rows, to_ids
from bigbird_port.tokenizers.special import DEFAULT_TOKENS, SpecialTokens

_SIDES = {"left": "left", "right": "right"}


class TokenizerBase(SpecialTokens, ABC):
    """A tokenizer around a ``tokenizers`` pipeline, which adds special tokens, truncates and pads."""

    is_fast: ClassVar[bool]
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]
    pad_token_type_id: ClassVar[int] = 0
    peer: ClassVar[str] = "BigBirdTokenizer"  # transformers' slow class, whose name its folders have
    peer_options: ClassVar[Mapping[str, Any]] = {}  # what that class takes a setting for that its folder does not have
    own_options: ClassVar[tuple[str, ...]] = ()  # constructor arguments that a folder keeps, beside all tokenizers'

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        pieces: Mapping[str, int],
        tokens: Mapping[str, Token],
        *,
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        additional_special_tokens: Sequence[Token] = (),
        model_max_length: int = NO_LIMIT,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        **unknown: Any,
    ) -> None:
        if unknown:
            known = [
                *DEFAULT_TOKENS,
                "additional_special_tokens",
                "added_tokens_decoder",
                "model_max_length",
                "padding_side",
                "truncation_side",
                "clean_up_tokenization_spaces",
                *self.own_options,
            ]
            raise ValueError(f"unknown tokenizer arguments {sorted(unknown)}: expected some of {', '.join(known)}")
        self._backend = backend
        named = {name: tokens[name] for name in DEFAULT_TOKENS if name in tokens}
        super().__init__(named, pieces, added_tokens_decoder or {}, additional_special_tokens)
        choice("padding_side", padding_side, _SIDES)
        choice("truncation_side", truncation_side, _SIDES)
        self.model_max_length = model_max_length
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self._changed()

    @abstractmethod
    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of a text, or of a pair in one list; unknown characters stay as they are."""

    @abstractmethod
    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Write the SentencePiece file into an existing folder and return its path."""

    @abstractmethod
    def _backend_input(self, given: Text) -> Text:
        """Return what the pipeline takes for one text, or for the words of one."""

    @classmethod
    @abstractmethod
    def _load(cls, path: Path, options: dict[str, Any]) -> Self:
        """Build the tokenizer from the files of a folder."""

    @classmethod
    @abstractmethod
    def of_vocabulary(cls, vocabulary: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a SentencePiece file with the settings of a folder; raises ValueError as the class.

        What the folder lists as added tokens may be a piece that is found without that.
        """

    @property
    def fast_name(self) -> str:
        """The name of the fast class."""
        return f"{type(self).__name__.removesuffix('Fast')}Fast"

    @property
    def max_len_single_sentence(self) -> int:
        """Tokens of one text that ``model_max_length`` leaves room for."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """Tokens of both texts of a pair that ``model_max_length`` leaves room for."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def __call__(
        self,
        text: Text | Sequence[Text] | None = None,
        text_pair: Text | Sequence[Text] | None = None,
        text_target: Text | Sequence[Text] | None = None,
        text_pair_target: Text | Sequence[Text] | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """Encode a text, a pair of texts, or batches of either, with transformers' meaning of the arguments.

        options: add_special_tokens (True), padding, truncation, max_length, stride, is_split_into_words,
        pad_to_multiple_of, padding_side, return_tensors ("np", "pt", "jax"), and return_token_type_ids,
        return_attention_mask (True), return_overflowing_tokens, return_special_tokens_mask, return_offsets_mapping,
        return_length. A single text gives lists of ints; a batch, ``return_tensors`` or ``return_overflowing_tokens``
        gives one row per text (or window), and windows come with ``overflow_to_sample_mapping``, the text's number.
        Offsets are characters (start, end), for the fast tokenizer only. Lengths are in tokens, padding included.
        The ids of text_target are ``labels`` beside those of text; alone it is encoded as any text.

        Raises ValueError for arguments that do not fit each other or the texts; it names them.
        """
        if text is None and text_target is None:
            raise ValueError("text was not given: give text, text_target or both")
        if text is None:
            return self._target_rows(text_target, text_pair_target, **options)
        rows = self._rows(text, text_pair, **options)
        if text_target is not None:
            rows["labels"] = self._target_rows(text_target, text_pair_target, **options)["input_ids"]
        return rows

    def _target_rows(self, text: Any, text_pair: Any, **options: Any) -> BatchEncoding:
        """Encode what a model is to write; a kind of tokenizer may end it otherwise than what the model reads."""
        return self._rows(text, text_pair, **options)

    def _rows(
        self,
        text: Any,
        text_pair: Any,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        if return_offsets_mapping and not self.is_fast:
            raise ValueError(f"return_offsets_mapping: offsets are known to {self.fast_name} only: use that one")
        side = self.padding_side if padding_side is None else padding_side
        plan = make_plan(padding, truncation, max_length, stride, pad_to_multiple_of, side, self.model_max_length)
        batch = as_batch(text, text_pair, is_split_into_words)
        encodings, located = self._encode(batch.texts, batch.pairs, plan, add_special_tokens, return_overflowing_tokens)
        if return_offsets_mapping and not located:
            raise ValueError(
                "return_offsets_mapping: a text has several accents on one letter, or the like, which the tokenizers "
                "library normalises otherwise than sentencepiece, so that offsets are not known: encode it without them"
            )
        wanted = {
            "input_ids": True,
            "token_type_ids": bool(return_token_type_ids),
            "attention_mask": return_attention_mask is not False,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }
        windows = [[one, *(one.overflowing if return_overflowing_tokens else [])] for one in encodings]
        flat = [window for group in windows for window in group]
        rows = {name: [_READ[name](window) for window in flat] for name, want in wanted.items() if want}
        if return_overflowing_tokens:
            rows["overflow_to_sample_mapping"] = [number for number, group in enumerate(windows) for _ in group]
        elif batch.single and return_tensors is None:
            rows = {name: values[0] for name, values in rows.items()}
        return BatchEncoding(to_tensors(rows, return_tensors), flat if located else None)

    def encode(self, text: Text, text_pair: Text | None = None, **options: Any) -> Any:
        """Return the ``input_ids`` of a text or a pair; ``options`` and errors are the call's."""
        return self(text, text_pair, **options)["input_ids"]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad rows that were encoded before: one, a batch by name, or a list of them, as a data loader has.

        Raises ValueError as the call does, and for rows without ``input_ids``.
        """
        side = self.padding_side if padding_side is None else padding_side
        plan = make_plan(padding, False, max_length, 0, pad_to_multiple_of, side, self.model_max_length)
        fill = {
            "input_ids": self.pad_token_id,
            "token_type_ids": self.pad_token_type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
        }
        rows = pad_rows(encoded_inputs, plan, fill, mask=return_attention_mask is not False)
        return BatchEncoding(to_tensors(rows, return_tensors))

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Return the text of one id, or of a row of ids in a list or any array of shape (tokens,).

        ``clean_up_tokenization_spaces`` None takes the tokenizer's own setting.

        Raises ValueError for an id that the vocabulary does not have.
        """
        tokens = self.convert_ids_to_tokens(to_ids(token_ids), skip_special_tokens)
        joined = join_rows(tokens, set(self.added_tokens_encoder), spaces_between_special_tokens, self._join)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return clean_up(joined) if clean_up_tokenization_spaces else joined

    def batch_decode(self, sequences: Iterable[Any], **options: Any) -> list[str]:
        """Return the text of every row; ``options`` and errors are those of decode."""
        return [self.decode(row, **options) for row in sequences]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...

    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int], skip_special_tokens: bool = False) -> list[str]: ...

    def convert_ids_to_tokens(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> str | list[str]:
        """Return the token of an id, or those of a row; raises ValueError for an id out of range."""
        if isinstance(ids, int):
            return self._token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token(token_id) for token_id in to_ids(ids) if token_id not in skipped]

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str] | tuple[str, ...]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | list[str] | tuple[str, ...]) -> int | list[int]:
        """Return the id of a token, or those of many; what the vocabulary does not have is the unknown token's."""
        if isinstance(tokens, str):
            return self._vocab.get(tokens, self.unk_token_id)
        return [self._vocab.get(token, self.unk_token_id) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens, special ones as they are, without space at its ends."""
        return self._join(tokens)

    @property
    def listed_tokens(self) -> dict[int, AddedToken]:
        """What a folder lists as added tokens, by id."""
        return self.added_tokens_decoder

    @property
    def own_settings(self) -> dict[str, Any]:
        """What a folder keeps beside the settings of all tokenizers."""
        return {name: getattr(self, name) for name in self.own_options}

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder, made if it is missing, and return their paths.

        Raises ValueError if the vocabulary is not known, or the folder cannot be written.
        """
        target = folder.make_folder(save_directory)
        return (*folder.write_settings(target, self), *self.save_vocabulary(target))

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Self:
        """Load what save_pretrained, or transformers, wrote into a folder; ``options`` win over its settings.

        Raises ValueError naming the folder or file, also where its files contradict each other.
        """
        return cls._load(Path(path), cls.read_settings(Path(path)).options | options)

    @classmethod
    def read_settings(cls, path: Path) -> folder.Settings:
        """Return what a folder says about its tokenizer, with what transformers' class takes where it says nothing.

        Raises ValueError naming the file that cannot be read.
        """
        settings = folder.read_settings(path, cls.own_options)
        told = cls.peer_options if settings.kind.removesuffix("Fast") == cls.peer else {}
        return replace(settings, options={**told, **settings.options})

    def _encode(
        self, texts: list[Text], pairs: list[Text] | None, plan: Plan, add_special_tokens: bool, windows: bool
    ) -> tuple[list[Encoding], bool]:
        """Return the rows, and whether they know where in the texts their tokens are."""
        special = self.num_special_tokens_to_add(pairs is not None) if add_special_tokens else 0
        check_room(plan, special, windows)
        inputs: list[Any] = [self._backend_input(one) for one in texts]
        split = bool(inputs) and not isinstance(inputs[0], str)
        if pairs is not None:
            seconds: list[Any] = [self._backend_input(one) for one in pairs]
            if windows and plan.stride:
                lengths = zip(self._lengths(inputs, split), self._lengths(seconds, split), strict=True)
                check_pair_windows(plan, special, list(lengths))
            inputs = list(zip(inputs, seconds, strict=True))
        self._prepare(plan, windows)
        try:
            rows = self._backend.encode_batch(inputs, is_pretokenized=split, add_special_tokens=add_special_tokens)
            return rows, self.is_fast
        except Exception as error:
            if not str(error).startswith("Truncation error"):
                raise
            raise ValueError(
                f"truncation {plan.truncation!r} to max_length {plan.max_length}: {error}: use 'longest_first' or a "
                "larger max_length"
            ) from None
        finally:
            self._backend.no_truncation()
            self._backend.no_padding()

    def _lengths(self, inputs: list[Any], split: bool) -> list[int]:
        rows = self._backend.encode_batch(inputs, is_pretokenized=split, add_special_tokens=False)
        return [len(row) for row in rows]

    def _prepare(self, plan: Plan, windows: bool) -> None:
        if plan.truncation is not None:
            self._backend.enable_truncation(
                plan.max_length,
                # Without windows the stride changes nothing, but the library would still check it.
                stride=plan.stride if windows else 0,
                strategy=plan.truncation,
                direction=self.truncation_side,
            )
        if plan.padding is not None:
            self._backend.enable_padding(
                direction=plan.padding_side,
                pad_id=self.pad_token_id,
                pad_type_id=self.pad_token_type_id,
                pad_token=self.pad_token,
                length=plan.max_length if plan.padding == "max_length" else None,
                pad_to_multiple_of=plan.pad_to_multiple_of,
            )

    def _changed(self) -> None:
        self._backend.post_processor = self._template()

    def _join(self, tokens: Sequence[str]) -> str:
        return join_pieces(tokens)

    def _template(self) -> processors.TemplateProcessing:
        single = f"{self.cls_token}:0 $A:0 {self.sep_token}:0"
        return processors.TemplateProcessing(
            single=single,
            pair=f"{single} $B:1 {self.sep_token}:1",
            special_tokens=[(self.cls_token, self.cls_token_id), (self.sep_token, self.sep_token_id)],
        )

    def _token(self, token_id: int) -> str:
        try:
            return self._tokens[token_id]
        except KeyError:
            raise ValueError(
                f"token id {token_id} is not in the vocabulary, which ends at {max(self._tokens)}: use the "
                "tokenizer that made the ids"
            ) from None


_READ: dict[str, Callable[[Encoding], Any]] = {
    "input_ids": lambda row: row.ids,
    "token_type_ids": lambda row: row.type_ids,
    "attention_mask": lambda row: row.attention_mask,
    "special_tokens_mask": lambda row: row.special_tokens_mask,
    "offset_mapping": lambda row: row.offsets,
    "length": len,
}
