"""Who is compared: each framework, the reference, golden files, transformers and a mesh, behind one protocol."""
