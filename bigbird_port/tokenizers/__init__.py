"""BigBird's tokenizer twice: on sentencepiece, and on the tokenizers library with offsets.

Both give what sentencepiece gives for the text between special tokens, and the same rows for every
option. Differences from transformers are told in ``slow`` and ``fast``.
"""

from __future__ import annotations

from bigbird_port.tokenizers.calls.batch import BatchEncoding
from bigbird_port.tokenizers.collators import MaskingCollator, PaddingCollator
from bigbird_port.tokenizers.fast import BigBirdTokenizerFast
from bigbird_port.tokenizers.files import write_tokenizer_files
from bigbird_port.tokenizers.slow import BigBirdTokenizer

__all__ = [
    "BatchEncoding",
    "BigBirdTokenizer",
    "BigBirdTokenizerFast",
    "MaskingCollator",
    "PaddingCollator",
    "write_tokenizer_files",
]
