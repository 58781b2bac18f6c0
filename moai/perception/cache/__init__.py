"""Cache perceptions on disk."""
