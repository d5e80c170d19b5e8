"""A page on this machine that follows runs while they work: python -m seva_exp.runs watch."""
