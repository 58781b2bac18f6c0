"""Installs the folder recipes/ as the package moai.recipes; pyproject.toml has all the rest.

pyproject.toml can map a folder to a package, but then every other package has to be listed by hand as well.
"""

from setuptools import find_namespace_packages, find_packages, setup

RECIPES = ["moai.recipes", *(f"moai.recipes.{folder}" for folder in find_namespace_packages("recipes"))]

setup(packages=[*find_packages(include=["moai", "moai.*"]), *RECIPES], package_dir={"moai.recipes": "recipes"})
