"""The safetensors format: reader and writer."""
