"""Experiments on the simulated platform: arms, people split by a hash, and statistics as strict as real ones."""
