"""Point-in-time reads: what was known of a person, a video or a query strictly before a moment."""
