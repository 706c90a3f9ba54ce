"""The commands that a page or a program sends, as they travel: checked before anything is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .runlengths import HIGHEST

Index = Annotated[int, Field(ge=0, description="number of a frame; the first is 0")]
Id = Annotated[int, Field(ge=1, le=HIGHEST, description="id of an object")]
Runs = Annotated[list[int], Field(max_length=4_000_000, description="a label map as [id, length, id, length, ...]")]
Place = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Colour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
Name = Annotated[str, Field(min_length=1, max_length=60)]
Points = Annotated[list[tuple[Place, Place]], Field(min_length=1, max_length=10_000)]


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)


class Look(_Command):
    """Ask for the label maps of some frames; they come as "mask" events."""

    type: Literal["look"]
    frames: Annotated[list[Index], Field(max_length=2_000)]


class Edit(_Command):
    """Annotate a frame with a label map, all objects in it."""

    type: Literal["edit"]
    frame: Index
    runs: Runs
    what: Name = "Edit"


class Shape(_Command):
    """Fill the holes of an object in a frame, grow it, shrink it, or drop its small parts."""

    type: Literal["shape"]
    frame: Index
    object: Id
    do: Literal["fill", "grow", "shrink", "tidy"]


class Clear(_Command):
    """Take the annotation of a frame away, so that propagation fills it."""

    type: Literal["clear"]
    frame: Index


class Keep(_Command):
    """Annotate a frame with the label map that is shown there: it is right as it is."""

    type: Literal["keep"]
    frame: Index


class First(_Command):
    """Ask for the mask of an object out of a box, clicks and scribbles; it comes as a "proposal" event."""

    type: Literal["first"]
    request: Annotated[int, Field(ge=0, description="number that the answer carries")]
    frame: Index
    box: tuple[Place, Place, Place, Place] | None = Field(None, description="x, y, width, height in pixels")
    clicks: Annotated[list[tuple[Place, Place, bool]], Field(max_length=200)] = []
    scribbles: Annotated[list[tuple[Points, bool]], Field(max_length=200)] = []


class AddObject(_Command):
    """Add an object."""

    type: Literal["add-object"]
    name: Name | None = None


class ChangeObject(_Command):
    """Change the name or the colour of an object, or whether it is shown."""

    type: Literal["change-object"]
    object: Id
    name: Name | None = None
    colour: Colour | None = None
    visible: bool | None = None


class RemoveObject(_Command):
    """Remove an object from the project and from all annotations."""

    type: Literal["remove-object"]
    object: Id


class Undo(_Command):
    """Take the last change back."""

    type: Literal["undo"]


class Redo(_Command):
    """Make a change again that was taken back."""

    type: Literal["redo"]


class Choose(_Command):
    """Choose the method that propagates."""

    type: Literal["choose"]
    method: Name


class Propagate(_Command):
    """Make what is out of date: forward from a frame, everywhere, or backward from the next annotated frame."""

    type: Literal["propagate"]
    direction: Literal["forward", "backward", "both"]
    frame: Index = 0
    first: Index | None = Field(None, description="no frame before this one is made; None: all may be")
    last: Index | None = Field(None, description="no frame after this one is made; None: all may be")


class Stop(_Command):
    """End the propagation after the frame in the making; what is made is kept."""

    type: Literal["stop"]


Command = Annotated[
    Look
    | Edit
    | Shape
    | Clear
    | Keep
    | First
    | AddObject
    | ChangeObject
    | RemoveObject
    | Undo
    | Redo
    | Choose
    | Propagate
    | Stop,
    Field(discriminator="type"),
]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
