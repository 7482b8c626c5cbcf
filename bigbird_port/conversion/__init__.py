"""Conversion: any source into any targets, and the commands that look at sources and outputs."""
