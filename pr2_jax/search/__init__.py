"""Search: from a person and a query to ranked videos."""
