"""The command line, one module per tool."""
