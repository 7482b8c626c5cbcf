"""BigBird checkpoints from TensorFlow to PyTorch and Flax, with proof that the model is the same."""

__version__ = "0.2.0"
