"""`pr2 ingest`: builds the store from a log and reports what became of every row."""
