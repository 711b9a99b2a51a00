"""The plan: an architecture as a flat list of ops, with its configuration and shapes."""
