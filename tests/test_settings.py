"""What is recorded of settings and of the machine that computed."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from onemask import settings


@pytest.mark.parametrize("name", ["opencv-python", "opencv-contrib-python-headless"])
def test_opencv_may_be_of_any_of_its_packages(monkeypatch, name):
    def installed(asked: str) -> str:
        if asked.startswith("opencv"):
            if asked != name:
                raise PackageNotFoundError(asked)
            return "4.11.0"
        return version(asked)

    monkeypatch.setattr(settings, "version", installed)
    found = settings.environment()
    assert [key for key in found if "opencv" in key] == [name]
    assert found[name] == "4.11.0"


def test_a_module_that_no_package_owns_tells_its_own_version(monkeypatch):
    def nothing(asked: str) -> str:
        raise PackageNotFoundError(asked)

    monkeypatch.setattr(settings, "version", nothing)
    import cv2

    assert settings.environment()["cv2"] == cv2.__version__


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_are_recorded_where_they_were_loaded(monkeypatch, runtime):
    monkeypatch.setattr(settings, "version", lambda name: "1.2")
    monkeypatch.delitem(sys.modules, runtime, raising=False)
    assert runtime not in settings.environment()
    monkeypatch.setitem(sys.modules, runtime, settings)  # any module
    assert settings.environment()[runtime] == "1.2"


def test_a_record_from_before_an_option_has_the_behaviour_of_then():
    asked = {"method": "dmn-aoa-lite", "options": {"memory": True}}  # `use_memory` and `holes` are newer
    found = settings.by_todays_keys(asked)["options"]
    assert (found["use_memory"], found["holes"], found["reach"]) == (True, True, 0.0)
    now = settings.Settings("dmn-aoa-lite").described()
    before = {**now, "options": {name: value for name, value in now["options"].items() if name != "holes"}}
    assert not settings.differences(settings.by_todays_keys(before), now)
