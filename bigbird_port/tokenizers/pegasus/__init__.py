"""BigBird-Pegasus' tokenizers: documents without an end, summaries with one, and what the original does to a text."""
