"""The largest sizes that a configuration may give: a loop over larger ones would not end, or fill the memory."""

from __future__ import annotations

# Far above every model that is known: BigBird large has 24 layers, 16 heads and 50 358 words.
LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 16,
    "intermediate_size": 1 << 22,
    "max_position_embeddings": 1 << 24,
    "type_vocab_size": 1 << 20,
    "block_size": 1 << 24,
    "num_random_blocks": 1 << 16,
    "num_labels": 1 << 16,  # each has a name
}
