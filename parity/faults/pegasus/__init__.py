"""BigBird-Pegasus' faults."""
