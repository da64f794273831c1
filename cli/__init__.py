"""The command line `nacre`: one module a subcommand."""
