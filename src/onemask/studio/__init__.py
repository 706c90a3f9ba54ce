"""onemask studio: draw, propagate, correct and export in a browser.

    page (TypeScript, static/) ──commands──▶ server ──▶ Studio ──▶ Desk ──▶ Project (a folder)
                               ◀──events──                          └─────▶ Worker (a process) ──▶ Propagation

`project` is the folder on disk. `worker` is the process that computes, as the server sees it, `bench` what it does,
`messages` what both say, `jobs` and `proposals` what is asked of it. `frames` shows the video. `desk` holds all that
together and knows the commands; `opening` changes it for another project's, one of the `recent` ones or of `uploads`.
`server` puts it on the network.
"""
