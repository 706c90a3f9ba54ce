"""Export of finished runs to the formats of other tools, and import of masks from them.

`formats` holds the table of formats; `exporting` writes them, and `importing` reads those that can be read back.
`result` is a finished run as the writers see it, and `matte` softens edges.
"""
