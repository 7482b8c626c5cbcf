"""BigBird-Pegasus: an encoder that attends by blocks, and a decoder that writes a summary of its text."""
