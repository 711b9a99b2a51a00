"""The oracle: what every number of fewbit means, in plain Python. Start with ``README.md``."""
