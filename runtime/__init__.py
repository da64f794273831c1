"""What runs: kernels, interpreters of every level, the emulated machine, the flat file and the session."""
