"""What the original does to a text before sentencepiece cuts it, and to what it reads back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenizers import Regex, normalizers

# RE2's \S, with which the original finds a bracketed word, excludes the white space of ASCII alone.
_BRACKETED = r"[<\[][^\t\n\f\r ]+[>\]]"
_BLANK = rf" (?={_BRACKETED})"


@dataclass(frozen=True)
class TextRules:
    """newline: what stands for a newline; None leaves newlines. tight: no blank directly before a bracketed word."""

    newline: str | None
    tight: bool

    def before(self, text: str) -> str:
        """Return a text as sentencepiece reads it."""
        text = text.replace("\n", self.newline) if self.newline else text
        return re.sub(_BLANK, "", text) if self.tight else text

    def after(self, text: str) -> str:
        """Return the text of what sentencepiece put together: every bracketed word has a blank before it."""
        text = re.sub(rf"({_BRACKETED})", r" \1", text) if self.tight else text
        return text.replace(self.newline, "\n") if self.newline else text

    def normalizers(self) -> list[normalizers.Normalizer]:
        """Return ``before`` for the tokenizers library."""
        newline = [normalizers.Replace("\n", self.newline)] if self.newline else []
        return [*newline, *([normalizers.Replace(Regex(_BLANK), "")] if self.tight else [])]
