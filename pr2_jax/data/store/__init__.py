"""The log store: memory-mapped columns, built from typed tables."""
