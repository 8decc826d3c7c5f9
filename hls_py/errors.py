"""The one kind of error that a user's input causes; command lines print it as one line and exit with 1."""


class TellmeError(Exception):
    """Bad input. The text names the thing and the remedy, in one line."""
