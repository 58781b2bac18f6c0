"""Map what the mixers attend to back to words and findings."""
