"""A seeded short-video platform that writes the five log tables and whose people answer any slate."""
