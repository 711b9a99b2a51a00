"""The command line: `fewbit.cli.main` joins the subcommands, one module for each kind."""

from fewbit.cli.main import app, run

__all__ = ["app", "run"]
