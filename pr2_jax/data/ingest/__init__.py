"""`pr2 ingest`: the whole way from a log to a store, with a report of every row."""
