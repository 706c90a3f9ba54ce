"""Frames in, files out: decoding, mask files, overlays, contact sheets. Nothing here knows torch."""
