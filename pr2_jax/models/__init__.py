"""The models (content towers, preference, PDR, QIN), what they share, and trained ones as functions on arrays."""
