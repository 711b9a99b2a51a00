"""What a file or a plan contains, and results as tables for people and JSON for programs."""
