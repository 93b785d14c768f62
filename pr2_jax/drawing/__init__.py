"""Charts as plain data, laid out once, and painted as SVG or as PNG."""
