"""The errors that a user can cause, each with what was expected, what came, and what to do."""


class OnemaskError(Exception):
    """Anything that onemask refuses or could not do; the command line prints its one line and exits with 2."""


class InputError(OnemaskError, ValueError):
    """Something that was given (a file, a mask, an option) is not what was expected."""


class Interrupted(OnemaskError):
    """The work was stopped by the user between two frames; it can be resumed."""


class OutputError(OnemaskError):
    """Something could not be written (it exists already, the disk is full); what was written before is kept."""
