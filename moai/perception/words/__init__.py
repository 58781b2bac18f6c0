"""Verbalize perceptions in a language and a style, within a token budget."""
