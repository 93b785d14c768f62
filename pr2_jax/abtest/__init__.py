"""A/B tests on the simulated platform: assignment by hash, serving by arm, lifts with intervals."""
