"""Errors of the runtime; command lines print them as one line and exit with 1."""


class HostError(Exception):
    """Bad input or a machine that can't go on. The text names the thing and the remedy, in one line."""


class PassError(HostError):
    """A pass stopped with a cause."""

    def __init__(self, cause: str, info: int):
        super().__init__(f"the accelerator stopped: {cause} (info {info:#x})")
        self.cause, self.info = cause, info
