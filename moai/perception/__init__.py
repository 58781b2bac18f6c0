"""The perception half: types, words, running experts, the cache, pictures. No tensor in here."""
