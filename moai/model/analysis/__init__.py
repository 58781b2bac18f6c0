"""Analyse a forward pass: what the mixers attend to."""
