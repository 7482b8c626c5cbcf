"""The head in Flax. B batch, L length, D hidden, C labels."""

from flax import linen as nn

from models_flax.bigbird.model import FlaxBigBirdModule
from models_flax.bigbird.task import FlaxBigBirdTaskModule
from models_flax.pretrained.model import FlaxBigBirdPreTrainedModel


class FlaxBigBirdForMeanRegressionModule(FlaxBigBirdTaskModule):
    """Numbers of a text."""

    def setup(self):
        self.bert = FlaxBigBirdModule(self.config, False, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.regressor = nn.Dense(self.config.num_labels, dtype=self.dtype)

    def split_inputs(self, arrays):
        ids, mask_BL = arrays["input_ids"], arrays.get("attention_mask")
        return arrays, {"real_BL": (ids != self.config.pad_token_id) if mask_BL is None else mask_BL != 0}

    def score(self, last_BLD, pooled_BD, deterministic=True, *, real_BL):
        weight_BL1 = real_BL[..., None].astype(last_BLD.dtype)
        mean_BD = (last_BLD * weight_BL1).sum(1) / weight_BL1.sum(1)
        return {"logits": self.regressor(mean_BD)}, {}


class FlaxBigBirdForMeanRegression(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForMeanRegressionModule with its parameters."""

    module_class = FlaxBigBirdForMeanRegressionModule
