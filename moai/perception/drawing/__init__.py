"""Draw perceptions on the image."""
