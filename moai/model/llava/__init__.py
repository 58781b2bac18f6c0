"""Open LLaVA checkpoints of transformers as runs, and save runs as such checkpoints."""
