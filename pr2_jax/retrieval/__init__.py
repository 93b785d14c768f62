"""Retrieval channels behind one contract (`types.Channel`), and how their results are merged."""
