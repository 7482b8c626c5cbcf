"""What the model classes of both frameworks share: their folders, and what from_pretrained takes."""
