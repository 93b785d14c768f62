"""From raw logs to a memory-mapped store, and the point-in-time reads that everything else is built on."""
