"""Point-in-time reads of the log: only what was known strictly before a moment."""
