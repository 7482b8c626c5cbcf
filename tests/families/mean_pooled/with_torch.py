"""The head in PyTorch. B batch, L length, D hidden, C labels."""

from torch import nn

from models_torch.bigbird.inputs import check_class_labels
from models_torch.bigbird.losses import classification_loss
from models_torch.bigbird.model import BigBirdModel
from models_torch.bigbird.task import ASKED, TEXT, BigBirdTaskModel


class BigBirdForMeanRegression(BigBirdTaskModel):
    """Numbers of a text. labels: [B, C]."""

    arguments = (*TEXT, "labels", *ASKED)

    def __init__(self, config, *, seed=0):
        super().__init__(config)
        self.bert = BigBirdModel(self.config, False, seed=None)
        self.regressor = nn.Linear(self.config.hidden_size, self.config.num_labels)
        self._initialise(seed)

    def split_inputs(self, arrays):
        ids, mask_BL = arrays["input_ids"], arrays.get("attention_mask")
        return arrays, {"real_BL": (ids != self.config.pad_token_id) if mask_BL is None else mask_BL != 0}

    def score(self, last_BLD, pooled_BD, real_BL):
        weight_BL1 = real_BL[..., None].to(last_BLD.dtype)
        mean_BD = (last_BLD * weight_BL1).sum(1) / weight_BL1.sum(1)
        return {"logits": self.regressor(mean_BD)}, {}

    def loss(self, scores, labels):
        labelled = (self.config.num_labels, self.config.problem_type)
        check_class_labels(labels, len(scores["logits"]), *labelled)
        return None if labels is None else classification_loss(scores["logits"], labels, *labelled)
