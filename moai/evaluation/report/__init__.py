"""Report an evaluation as table, page, picture and files."""
