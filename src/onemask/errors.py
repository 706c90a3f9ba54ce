"""The errors that a user can cause, each with what was expected, what came, and what to do."""

OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "insufficient memory",
    "storage size calculation overflow",
)


class OnemaskError(Exception):
    """Anything that onemask refuses or could not do; the command line prints its one line and exits with 2."""


class InputError(OnemaskError, ValueError):
    """Something that was given (a file, a mask, an option) is not what was expected."""


class Interrupted(OnemaskError):
    """The work was stopped by the user between two frames; it can be resumed."""


class OutputError(OnemaskError):
    """Something could not be written (it exists already, the disk is full); what was written before is kept."""


def one_line(error: BaseException) -> str:
    """The text of another package's error in one line of at most 200 characters; its type's name if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for that is not there. On a CPU torch and OpenCV say so only in words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without its import
        return True
    text = str(error).lower()
    return any(words in text for words in OUT_OF_MEMORY)
