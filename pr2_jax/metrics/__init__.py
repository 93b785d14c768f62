"""Metrics of rankings and probabilities, with their intervals: plain functions of arrays."""
