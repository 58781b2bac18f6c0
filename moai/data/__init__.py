"""Data sets, and how samples become batches."""
