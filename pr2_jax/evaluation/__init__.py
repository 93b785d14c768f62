"""Metrics, intervals, run files and tables."""
