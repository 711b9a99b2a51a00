"""The oracle: fewbit's formats and arithmetic, defined in plain Python; start with README.md."""
