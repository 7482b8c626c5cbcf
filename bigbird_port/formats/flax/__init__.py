"""The formats of Flax: msgpack and Orbax, readers and writers."""
