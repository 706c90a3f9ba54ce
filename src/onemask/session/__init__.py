"""The causal engine: a frame comes in, its label map goes out. The class is in `session`, its parts in the others."""

from .session import EncodedFrame, Session

__all__ = ["EncodedFrame", "Session"]
