"""The command line: Hydra's config to objects, jobs, sweeps, and the other commands."""
