"""The data set `photographs`: questions about real photographs, written by looking at them, for tests only."""

import moai
from moai_photographs.photographs import photographs


@moai.hookimpl
def register_datasets(register):
    """Register ``photographs``."""
    register("photographs", photographs)
