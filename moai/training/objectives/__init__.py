"""Training objectives beside the answers' cross-entropy."""
