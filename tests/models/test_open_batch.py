"""All texts at once, as exported programs have it, against one text after the other."""

import pytest
import torch

from bigbird_port.config import BigBirdConfig
from bigbird_port.sparse.formulation import formulation
from models_torch.attention.gathering import every_head
from models_torch.attention.open_batch import every_text, is_known
from models_torch.attention.rows import Row
from models_torch.bigbird.encoder import encoder_lists

W = 4


@pytest.mark.parametrize("length", [W, 2 * W, 9 * W, 16 * W])
@pytest.mark.parametrize("random_blocks", ["original", "transformers"])
def test_texts_at_once_are_texts_one_by_one(length, random_blocks):
    """Also of inputs shorter than the pattern, which have fewer lists or none; padded in front and behind."""
    config = BigBirdConfig(
        hidden_size=16,
        num_attention_heads=2,
        block_size=W,
        num_random_blocks=1,
        max_encoder_length=64 if random_blocks == "transformers" else 528,
        random_blocks=random_blocks,
    )
    lists = encoder_lists(config, 0, length, torch.device("cpu"))
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(3, 2, length, 8, generator=generator) for _ in range(3))
    mask = torch.ones(3, length, dtype=torch.bool)
    mask[1, : length // 3], mask[2, length // 2 :] = False, False
    row = Row(lists.texts, lists.global_blocks, W, formulation("torch", "cpu"))
    arguments = (q, k, v, mask, lists.key_blocks, lists.counts, row)
    assert torch.allclose(every_text(*arguments), every_head(*arguments), atol=2e-6)
    mask[0, 0] = False  # what is compared depends on the mask
    assert not torch.allclose(every_text(*arguments), every_head(q, k, v, mask.roll(1, 1), *arguments[4:]), atol=1e-3)


def test_a_number_is_known():
    assert is_known(3)
