"""The subcommands of ``fewbit``, one function each; `fewbit.cli` puts them together."""
