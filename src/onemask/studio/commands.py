"""Commands that a page or program sends, validated before anything is done."""

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
    """Request the label maps of some frames; they arrive as "mask" events."""

    type: Literal["look"]
    frames: Annotated[list[Index], Field(max_length=2_000)]


class Edit(_Command):
    """Annotate a frame with a label map of all objects."""

    type: Literal["edit"]
    frame: Index
    runs: Runs
    what: Name = "Edit"


class Shape(_Command):
    """Fill the holes of an object in a frame, grow it, shrink it, or remove its small parts."""

    type: Literal["shape"]
    frame: Index
    object: Id
    do: Literal["fill", "grow", "shrink", "tidy"]


class Clear(_Command):
    """Remove the annotation of a frame, so that propagation fills it."""

    type: Literal["clear"]
    frame: Index


class Keep(_Command):
    """Annotate a frame with the label map that is shown there, to confirm that it is right."""

    type: Literal["keep"]
    frame: Index


class First(_Command):
    """Request the mask of an object from a box, clicks and scribbles; it arrives as a "proposal" event."""

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
    """Change the name, colour or visibility of an object."""

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
    """Undo the last change."""

    type: Literal["undo"]


class Redo(_Command):
    """Redo the last change that was undone."""

    type: Literal["redo"]


class Choose(_Command):
    """Choose the method that propagates."""

    type: Literal["choose"]
    method: Name


class Propagate(_Command):
    """Compute frames that are out of date: forward from a frame, everywhere, or backward from the next annotation."""

    type: Literal["propagate"]
    direction: Literal["forward", "backward", "both"]
    frame: Index = 0
    first: Index | None = Field(None, description="no frame before this one is made; None: all may be")
    last: Index | None = Field(None, description="no frame after this one is made; None: all may be")


class Stop(_Command):
    """Stop the propagation after the current frame; finished frames are kept."""

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
