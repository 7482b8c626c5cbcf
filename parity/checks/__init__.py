"""What is checked beside the comparison."""
