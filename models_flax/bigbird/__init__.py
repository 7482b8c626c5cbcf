"""The model: embeddings, layers, heads, and what a call takes and gives."""
