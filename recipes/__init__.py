"""Recipes that come with moai, installed as the package ``moai.recipes`` so that their names work in any folder."""
