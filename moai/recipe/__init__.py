"""The recipe: schema, defaults and loading."""
