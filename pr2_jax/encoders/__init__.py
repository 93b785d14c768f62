"""Trained towers as functions on NumPy arrays, and the preference vectors fitted on top of them."""
