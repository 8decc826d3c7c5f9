"""The subcommands of ``tellme``, one a file."""
