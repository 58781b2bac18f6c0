"""Estimate the memory that a recipe needs, without weights."""
