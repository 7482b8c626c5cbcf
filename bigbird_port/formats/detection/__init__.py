"""What a path, a file or a set of names is, before a reader is chosen."""
