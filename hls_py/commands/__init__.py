"""The subcommands of tellme-hls, one module each: ``add_arguments(parser)`` and ``run(arguments)``."""
