"""What a run is given: inputs, texts, cases of the original."""
