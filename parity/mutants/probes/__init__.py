"""What is run of each room of the code, so that a change that changes nothing is told from one that does."""
