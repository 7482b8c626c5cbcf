"""What a path, a file or a set of names is, told before anything reads it, and what to do where it is no model."""
