"""onemask studio: draw, propagate, correct and export in a browser.

    page (TypeScript, static/) ──commands──▶ server ──▶ Studio ──▶ Project (a folder)
                               ◀──events──                └──▶ Worker (a process) ──▶ Propagation

`project` is the folder on disk, `worker` makes them in a process of its
own, `frames` shows the video, `desk` holds all that together and knows the commands, `server` puts it on the network.
"""
