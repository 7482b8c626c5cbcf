"""What the seven models with a task head have in common: a call goes to the base model, its states to score, to loss.

Legend: B batch, L length, M positions of a text, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor

from bigbird_port.models.output import ModelOutput
from models_torch import host
from models_torch.arguments import BY_KEYWORD, forward_of
from models_torch.bigbird.inputs import Arrays
from models_torch.bigbird.layer import Taps
from models_torch.bigbird.model import BigBirdModel, Scores
from models_torch.bigbird.outputs import BigBirdHeadOutput, BigBirdModelOutput
from models_torch.pretrained.model import BigBirdPreTrainedModel

_NAMES = tuple(field.name for field in fields(Arrays))
TEXT, ENCODER = _NAMES[:6], _NAMES[6:8]
ASKED = ("output_attentions", "output_hidden_states", "return_dict")


class BigBirdTaskModel(BigBirdPreTrainedModel, abstract=True):
    """Base of the models with a task head.

    arguments: forward's, in order; what is neither the base model's nor split_inputs's goes to ``loss``. output: what
    forward returns.
    """

    arguments: ClassVar[tuple[str, ...]]
    output: ClassVar[type[ModelOutput]] = BigBirdHeadOutput
    _of_base: ClassVar[tuple[str, ...]]  # fields of the output that the base model's has
    bert: BigBirdModel
    score: Callable[..., tuple[Scores, Taps]]
    loss: Callable[..., Tensor | None]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {field.name for field in fields(cls.output)}  # type: ignore[arg-type]
        cls._of_base = tuple(field.name for field in fields(BigBirdModelOutput) if field.name in own - {"taps"})
        if "arguments" in cls.__dict__:
            cls.forward = forward_of(cls.arguments)

    def _answer(self, given: dict[str, Any]) -> Any:
        """Run the model on forward's arguments by name."""
        asked = {name: given.pop(name) for name in (*ASKED[:2], *BY_KEYWORD)}
        return_dict, use_cache = given.pop("return_dict"), given.pop("use_cache", False)
        inputs = {name: given.pop(name) for name in self.arguments if name in (*_NAMES, "question_lengths")}
        arrays, beside = self.split_inputs(inputs)
        with host.together(given.values()):
            base = self.bert(**arrays, **asked, use_cache=use_cache, return_dict=True)
            scores, taps = self.score(base.last_hidden_state, base.pooler_output, **beside)
            loss = self.loss(scores, **given)
        kept = {name: getattr(base, name) for name in self._of_base}
        all_taps = join_taps(base.taps, taps)
        output = self.output(loss=loss, **scores, **kept, taps=all_taps)  # type: ignore[call-arg]
        return self._returned(output, return_dict)

    def scores_at(self, positions_BM: Tensor, **inputs: Any) -> Scores:
        """Return the scores at positions [B, M] of each text alone, as training on masked words wants them."""
        base = self.bert(**inputs, return_dict=True)
        at_BMD = positions_BM[:, :, None].expand(-1, -1, base.last_hidden_state.shape[-1])
        scores, _ = self.score(base.last_hidden_state.gather(1, at_BMD), base.pooler_output)
        return scores


def join_taps(base: Taps | None, head: Taps) -> Taps | None:
    """Return base and head taps together, or None where none were asked for."""
    return None if base is None else base | head
