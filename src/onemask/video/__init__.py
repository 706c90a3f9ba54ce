"""Video input and output: decoding, mask files, overlays, contact sheets. Nothing here depends on torch."""
