"""Files that are written whole and read with suspicion: text, JSON, tensors, checkpoints and folders of them."""
