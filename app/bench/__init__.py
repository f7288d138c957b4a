"""What does a running service bear? Load and figures, for the command `karyon bench` and the project's benchmarks."""
