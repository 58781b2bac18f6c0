"""Train and compare a folder of recipes."""
