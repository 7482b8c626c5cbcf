"""What one writes without this project: TensorFlow reads the weights, safetensors writes those of torch.

python -m benchmarks.tensorflow_road PREFIX FILE
"""

from __future__ import annotations

import os
import re
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import safetensors.numpy
import tensorflow as tf

RENAMES = (
    (r"^transform/(gamma|beta)$", r"cls/predictions/transform/LayerNorm/\1"),
    (r"^transform/", "cls/predictions/transform/dense/"),
    (r"^bert/encoder/LayerNorm/", "bert/embeddings/LayerNorm/"),
    (r"^bert/pooler/dense/", "bert/pooler/"),
    (r"/layer_(\d+)/", r"/layer/\1/"),
    (r"(_embeddings)$", r"\1/weight"),
    (r"(kernel|gamma|output_weights)$", "weight"),
    (r"(beta|output_bias)$", "bias"),
)


def main() -> None:
    prefix, file = sys.argv[1:]
    reader = tf.train.load_checkpoint(prefix)
    weights = {}
    for name in reader.get_variable_to_shape_map():
        if "AdamWeightDecayOptimizer" not in name:
            values = reader.get_tensor(name)
            weights[renamed(name)] = np.ascontiguousarray(values.T) if name.endswith("kernel") else values
    safetensors.numpy.save_file(weights, file, metadata={"format": "pt"})


def renamed(name: str) -> str:
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name.replace("/", ".")


if __name__ == "__main__":
    main()
