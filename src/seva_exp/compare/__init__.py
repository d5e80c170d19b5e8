"""Finished runs side by side: what differs, what changed, and whether that is more than chance."""
