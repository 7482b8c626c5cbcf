"""One call of a tokenizer: its texts, what is cut and padded, and the batch that comes back."""
