"""Measures (numpy and OpenCV only), scores of folders, protocols of the benchmarks."""

PROTOCOLS = {
    "davis2016": "J and F, everything annotated as one object",
    "davis2017": "J and F of each object",
    "jumpcut": "error 16 frames after each of the key frames 0, 16, ..., 96, without the frames in between",
    "jumpcut-online": "as jumpcut, but with the frames in between",
    "youtube-objects": "J by class, from the first annotated frame of a shot",
    "youtube-vos": "J and F of each object in all annotated frames after its first; G over seen and unseen classes",
}
"""Name of a protocol -> its summary; `protocols.protocol` returns the protocol."""
