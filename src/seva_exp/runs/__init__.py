"""A run's folder: what happens is told and written down, and read again."""
