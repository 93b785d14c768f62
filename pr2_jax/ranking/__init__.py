"""Ranking: features, the QIN ranker, calibration of its heads, and their fusion into one score."""
