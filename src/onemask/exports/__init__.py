"""A finished run in the formats of other tools, and masks that come back from them.

`formats` has the one table of formats; `exporting` writes them, `importing` reads those that can come back. `result` is
a finished run as the writers see it, `matte` softens edges.
"""
