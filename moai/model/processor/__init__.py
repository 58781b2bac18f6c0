"""Turn conversations, images and perceptions into tensors."""
