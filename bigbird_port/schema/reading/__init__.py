"""Reading a source: which weight each of its names means, and which part of it holds the weights."""
