"""Typed tables → a memory-mapped store of columns."""
