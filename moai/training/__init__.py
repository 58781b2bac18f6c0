"""Recipes and the two-step training."""
