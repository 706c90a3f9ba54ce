"""Objects in a live stream: `live` follows them, `output` shows, records and writes them, `stream` brings the frames.

`window`, `mjpeg` and `hls` show pictures on a screen, in a browser, and to a web server.
"""

from .live import Event, Live, LiveLabels, LiveReport
from .output import follow
from .stream import Stream

__all__ = ["Event", "Live", "LiveLabels", "LiveReport", "Stream", "follow"]
