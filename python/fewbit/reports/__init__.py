"""Results as pages and JSON: what a file or plan contains, and writing any result to stdout."""
