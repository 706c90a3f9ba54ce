"""onemask studio: draw, propagate, correct and export masks in a browser.

    page (TypeScript, static/) ──commands──▶ server ──▶ Studio ──▶ Desk ──▶ Project (a folder)
                               ◀──events──                          └─────▶ Worker (a process) ──▶ Propagation

`project` is the folder on disk. `worker` is the server's side of the process that computes, `bench` is the code that
runs in it, `messages` are exchanged between them, and `jobs` and `proposals` are the requests. `frames` serves the
video's pictures. `desk` ties these together and handles the commands; `opening` replaces it with the desk of another
project, from `recent` or from `uploads`. `server` is the HTTP and WebSocket interface.
"""
