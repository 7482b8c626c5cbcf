"""TensorFlow's checkpoints and SavedModels: readers and writers."""
