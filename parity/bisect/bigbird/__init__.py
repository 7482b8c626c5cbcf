"""BigBird's modules, each with one step done wrong."""
