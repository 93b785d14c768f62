"""The command line. It knows every room and holds no logic."""
