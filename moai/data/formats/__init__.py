"""Formats of data files, one per file: functions of a source that return its samples, registered like a plugin's."""
