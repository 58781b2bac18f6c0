"""Run experts on images: validation, isolation, scheduling and settings."""
