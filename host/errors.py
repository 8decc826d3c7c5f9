"""Errors of the runtime; command lines print them as one line and exit with 1."""

from rtl.contract.register_map import ErrorCause

MEANINGS = {
    ErrorCause.ABORTED: "it was told to",
    ErrorCause.WATCHDOG: "no progress for too long",
    ErrorCause.READ_ERROR: "memory refused a read",
    ErrorCause.WRITE_ERROR: "memory refused a write",
    ErrorCause.RECORD_MAGIC: "what lies in memory is no weight stream; load the image again",
    ErrorCause.RECORD_CRC: "the weights in memory are damaged; load the image again",
    ErrorCause.RECORD_FRAMING: "weights and program don't belong together; pack the model again",
    ErrorCause.BAD_COMMAND: "the program in memory is damaged; load the image again",
    ErrorCause.WRONG_DESIGN: "the program is for another design; pack the model for this one",
    ErrorCause.READ_OVERFLOW: "a fault of the design; please report it",
}


class HostError(Exception):
    """Bad input or a machine that can't go on. The text names the thing and the remedy, in one line."""


class PassError(HostError):
    """A pass stopped; ``cause`` is the name of an ErrorCause (or a number that is none), ``info`` its ERROR_INFO."""

    def __init__(self, cause: int, info: int):
        known = cause in list(ErrorCause)
        self.cause = ErrorCause(cause).name if known else f"cause {cause}"
        self.info = info
        meaning = MEANINGS.get(ErrorCause(cause)) if known else None
        if cause == ErrorCause.WATCHDOG and info >> 16:
            ports = [str(port) for port in range(16) if info >> 16 + port & 1]
            meaning = f"memory port {' and '.join(ports)} doesn't answer"
        more = f": {meaning}" if meaning else ""
        super().__init__(f"the accelerator stopped with {self.cause} (info {info:#x}){more}")
