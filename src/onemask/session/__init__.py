"""The causal engine: a frame comes in, its label map goes out. `session` has it, the other modules its parts."""

from .session import EncodedFrame, Session

__all__ = ["EncodedFrame", "Session"]
