"""Perceive a corpus of images into Parquet shards, and read perceptions from them."""
