"""BigBird-Pegasus' frameworks as witnesses."""
