"""The tokenizers of BigBird and BigBird-Pegasus, each twice: on sentencepiece, and on the tokenizers library.

Both give what sentencepiece gives for the text between special tokens, and the same rows for every
option; the second know offsets. Differences from transformers are told in ``slow``, ``fast`` and ``pegasus.fast``.
"""

from __future__ import annotations

from bigbird_port.tokenizers.calls.batch import BatchEncoding
from bigbird_port.tokenizers.collators import MaskingCollator, PaddingCollator
from bigbird_port.tokenizers.fast import BigBirdTokenizerFast
from bigbird_port.tokenizers.files import write_tokenizer_files
from bigbird_port.tokenizers.pegasus.fast import BigBirdPegasusTokenizerFast
from bigbird_port.tokenizers.pegasus.slow import BigBirdPegasusTokenizer
from bigbird_port.tokenizers.slow import BigBirdTokenizer

__all__ = [
    "BatchEncoding",
    "BigBirdPegasusTokenizer",
    "BigBirdPegasusTokenizerFast",
    "BigBirdTokenizer",
    "BigBirdTokenizerFast",
    "MaskingCollator",
    "PaddingCollator",
    "write_tokenizer_files",
]
