"""The big harness as a second opinion: lmms-eval's own prompts, data and scoring on a finished
run's models, in an environment of its own."""
