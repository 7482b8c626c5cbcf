"""BigBird-Pegasus in Flax: an encoder that attends by blocks, and a decoder."""
