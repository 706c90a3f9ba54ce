import json

import pytest

from onemask import extras


class Installed:
    def __init__(self, noted: object):
        self.noted = noted

    def read_text(self, name: str) -> str | None:
        return None if self.noted is None else json.dumps(self.noted)


@pytest.mark.parametrize(
    ("noted", "advice"),
    [
        (
            {"url": "file:///home/me/one%20mask", "dir_info": {"editable": True}},
            "pip install '/home/me/one mask[plot]'",
        ),
        ({"url": "https://example.org/onemask.whl"}, "install onemask again, from where you have it, with the extra"),
        (None, "install onemask again, from where you have it, with the extra [plot]"),
        ([], "install onemask again"),
    ],
)
def test_the_index_is_not_advised(monkeypatch, noted, advice):
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(noted))
    assert extras.how_to_install("plot").startswith(advice)
    assert "'onemask[" not in extras.how_to_install("plot")
