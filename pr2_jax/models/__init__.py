"""Pure functions: layers, losses and the three models. Nothing here reads a file or knows a table's size."""
