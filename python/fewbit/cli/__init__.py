"""The command line: `fewbit.cli.main` puts the subcommands together, one module for each kind."""
