"""The models as transformers' own: for Trainer, pipelines, generate with beams, PEFT, accelerate and Auto classes.

One import registers them. For each head of each family there is a class, called as the product's with Ported before it:
``PortedBigBirdForMaskedLM.from_pretrained(folder)`` loads what convert, save_pretrained or transformers wrote, and so
do the Auto classes for what these classes save. What computes is the product's model itself.
"""

from bigbird_port.installed import need

need("bigbird_port.integrations.transformers", "torch", "transformers")

from bigbird_port.integrations.transformers.classes import CLASSES, CONFIGS, register

register()
globals().update({kind.__name__: kind for kind in (*CONFIGS.values(), *CLASSES.values())})
__all__ = [*(kind.__name__ for kind in (*CONFIGS.values(), *CLASSES.values())), "register"]
