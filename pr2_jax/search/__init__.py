"""From a person and a query to ranked videos."""
