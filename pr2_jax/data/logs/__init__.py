"""Log files → typed tables. Every physical record is kept, left out, repeated or quarantined, and counted."""
