"""A finished run's model as a folder that others load: merged or as an adapter, with its card."""
