"""The frozen host: loading, checks, and a vision-language host's own vision."""
