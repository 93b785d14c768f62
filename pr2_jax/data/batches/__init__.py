"""Rows of the store → training batches. Each builder is a pure function of the step number."""
