"""From the ranker's head probabilities to one calibrated, fused score."""
