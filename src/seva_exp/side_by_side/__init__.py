"""Questions to a finished run: base and aligned model answer beside each other."""
