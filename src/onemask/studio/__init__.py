"""onemask studio: draw, propagate, correct and export in a browser.

    page (TypeScript, static/) ──commands──▶ server ──▶ Studio ──▶ Desk ──▶ Project (a folder)
                               ◀──events──                          └─────▶ Worker (a process) ──▶ Propagation

`project` is the folder on disk, `worker` the process that computes, `jobs` what is asked of it, `frames` shows the
video, `desk` holds all that together and knows the commands, `opening` changes the desk for another project's, and
`server` puts it on the network.
"""
