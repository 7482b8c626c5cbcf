"""The tokenizer of a conversion: what is carried, and what has no place in a target, in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_port.families.configuration import Configuration
from bigbird_port.files.json_object import read_json_object

if TYPE_CHECKING:
    from bigbird_port.conversion.plan import Settings
    from bigbird_port.tokenizers.files import CarriedTokenizer

_DECODER = "added_tokens_decoder"
_NEWLINE = "substitute_newline"


def plan_tokenizer(
    vocabulary: Path | None,
    library: Path | None,
    source: Path,
    settings: Settings,
    former: Configuration,
    config: Configuration,
    flags: Path | None = None,
) -> tuple[CarriedTokenizer | None, list[str]]:
    """Return the tokenizer of a SentencePiece file, or else of a tokenizer.json, and what to say of it.

    source: what is converted. former, config: before and after positions are extended. flags: the file that describes
    the model. Raises ValueError if the model
    has no embedding for a piece or an added token, or there can be no tokenizer though --vocab asks for it.
    """
    if vocabulary is None and library is None:
        return None, []
    from bigbird_port.tokenizers.files import SETTINGS_FILES, carry_tokenizer, listing  # slow to import

    beside = (vocabulary or library or source).absolute().parent
    tokenizer = carry_tokenizer(
        *(vocabulary, beside, config.max_position_embeddings, config.vocab_size, former.max_position_embeddings),
        kind=config.family.tokenizer,
        told=_newline(flags),
    )
    notes = list(tokenizer.notes)
    if settings.vocab and tokenizer.slow is None:
        raise ValueError(f"--vocab {vocabulary}: {'; '.join(notes)}")
    folder = source if source.is_dir() else source.parent
    there = [name for name in SETTINGS_FILES if (folder / name).is_file()]
    if there and beside != folder.absolute():
        notes.append(f"tokenizer settings and added tokens are those beside {vocabulary}, not {folder / there[0]}")
    if "tf" in settings.to and tokenizer.added:
        notes.append(
            "tf: the original has a SentencePiece vocabulary alone and no place for added tokens: it goes without "
            f"{listing(tokenizer.added)}"
        )
    if "tf" in settings.to and vocabulary is None:
        notes.append("tf: the original reads no tokenizer.json: it goes without a vocabulary")
    return tokenizer, notes


def _newline(flags: Path | None) -> dict[str, Any]:
    """What the original's flags for summaries say of newlines: what they name, or none where they name nothing."""
    values = read_json_object(flags) if flags else {}
    if "max_decoder_length" not in values or _NEWLINE not in values:
        return {}
    return {_NEWLINE: values[_NEWLINE] or ""}


def added_token_problems(folder: Path, records: list[dict[str, Any]], vocab_size: int) -> list[str]:
    """What differs between a manifest's added tokens and those of a target's tokenizer_config.json."""
    problems = [
        f"added token {record['content']!r} has id {record['id']}, where the model has {vocab_size} embeddings"
        for record in records
        if record["id"] >= vocab_size
    ]
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return [*problems, *([f"there is no {file.name}, which would hold the added tokens"] if records else [])]
    found = read_json_object(file).get(_DECODER, {})
    for record in records:
        expected = {name: value for name, value in record.items() if name != "id"}
        if found.get(str(record["id"])) != expected:
            problems.append(f"{file.name} has {found.get(str(record['id']))}, expected the added token {expected}")
    return problems
