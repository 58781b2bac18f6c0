"""Encode images and auxiliary words: vision encoder, connectors, word embeddings, compressor."""
