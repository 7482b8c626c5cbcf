"""BigBird-Pegasus in PyTorch: an encoder that attends by blocks, and a decoder."""
