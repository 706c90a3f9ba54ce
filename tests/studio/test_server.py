"""The server: who is let in, and what may be sent."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import socket as socket_
import threading
import zipfile
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from onemask.errors import InputError
from onemask.studio import runlengths
from onemask.studio.guard import LARGEST_BODY
from onemask.studio.project import MethodChoice, Project
from onemask.studio.serve import Server, _hosts, serve
from onemask.studio.server import make_app
from onemask.video.masks import read_label_map, write_mask

from .conftest import FRAMES, TOKEN, square, until

HOST = "127.0.0.1:4711"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(studio):
    return TestClient(make_app(studio, TOKEN, (HOST,)), base_url=f"http://{HOST}", headers=BEARER)


@pytest.fixture
def stranger(studio):
    return TestClient(make_app(studio, TOKEN, (HOST,)), base_url=f"http://{HOST}", follow_redirects=False)


def socket(client, **headers):
    return client.websocket_connect(f"ws://{HOST}/api/socket", headers={"host": HOST, **headers})


PATHS = ("/", "/studio.js", "/api/state", "/api/openapi.json", "/api/frames/0.jpg", "/api/masks/0.png", "/docs", "/x")


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_without_the_token_nothing_answers(stranger, token):
    for path in PATHS:
        given = stranger.get(path if token is None else f"{path}?token={token}")
        assert given.status_code == 401, path
    headers = {} if token is None else {"authorization": f"Bearer {token}".encode()}
    assert stranger.post("/api/commands", json={"type": "undo"}, headers=headers).status_code == 401
    with pytest.raises(WebSocketDisconnect), socket(stranger):
        pass


def test_the_address_with_the_token_gives_a_cookie_and_is_left(stranger):
    given = stranger.get(f"/?token={TOKEN}")
    assert (given.status_code, given.headers["location"]) == (303, "/")
    cookie = given.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/state").json()["video"]["frames"] == FRAMES
    with socket(stranger, origin=f"http://{HOST}") as opened:
        assert opened.receive_json()["type"] == "state"


@pytest.mark.parametrize("other", ['theme={"dark": true, "at": 1}', "a[0]=b c", "a/b=c", 'open="', "é=1"])
def test_cookies_of_other_programs_on_this_machine_do_no_harm(stranger, other):
    cookie = f"{other}; onemask-4711={TOKEN}".encode("latin-1")
    assert stranger.get("/api/state", headers={"cookie": cookie}).status_code == 200


def test_browsers_leave_out_the_port_of_http(studio):
    app = make_app(studio, TOKEN, _hosts(("[::1]", "127.0.0.1"), 80))
    for host in ("127.0.0.1", "127.0.0.1:80", "[::1]"):
        visitor = TestClient(app, base_url=f"http://{host}", headers={"host": host}, follow_redirects=False)
        given = visitor.get(f"/?token={TOKEN}")
        assert (given.status_code, given.headers["set-cookie"].partition("=")[0]) == (303, "onemask-80")
    assert _hosts(("localhost",), 8000) == ("localhost:8000",)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:4712", f"http://{HOST}.evil.example"]
)
def test_other_pages_are_refused_though_they_have_the_token(client, origin):
    assert client.get("/api/state", headers={"origin": origin}).status_code == 403
    assert client.post("/api/commands", json={"type": "undo"}, headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), socket(client, origin=origin):
        pass


def test_other_names_for_this_host_are_refused(client):
    assert client.get("/api/state", headers={"host": "rebound.example:4711"}).status_code == 421


def test_every_answer_forbids_scripts_from_elsewhere(client, stranger):
    for given in (client.get("/"), client.get("/api/state"), client.get("/api/frames/99.jpg"), stranger.get("/")):
        policy = given.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert given.headers["x-content-type-options"] == "nosniff"


def test_frames_are_those_of_the_video(client, clip):
    for index in (0, 5, 2, 7):
        picture = cv2.imdecode(np.frombuffer(client.get(f"/api/frames/{index}.jpg").content, np.uint8), 1)[..., ::-1]
        error = [np.abs(picture.astype(int) - frame).mean() for frame in clip.frames]
        assert np.argmin(error) == index
        assert client.get(f"/api/thumbnails/{index}.jpg").headers["content-type"] == "image/jpeg"  # of what is decoded
    assert client.get("/api/coded").status_code == 204  # these are pictures
    assert client.get(f"/api/frames/{FRAMES}.jpg").json()["problem"].startswith(f"there is no frame {FRAMES}")


@pytest.mark.parametrize("name", ["..%2f..%2fproject.json", "%2fetc%2fpasswd", "0%00", "-1", "1e3", "0.jpg%2f.."])
def test_no_path_from_outside_is_used_as_one(client, name):
    for kind in ("frames", "masks", "mattes", "thumbnails"):
        given = client.get(f"/api/{kind}/{name}.jpg")
        assert given.status_code in (400, 404, 405, 422), (kind, name)
    assert client.get(f"/{name}").status_code == 404


def test_two_who_look_on_see_the_same(client, desk):
    runs = runlengths.encode(square(desk.project.shape, 8, 8))
    with socket(client) as one, socket(client) as two:
        for opened in (one, two):
            assert [opened.receive_json()["type"] for _ in range(2)] == ["state", "frames"]
        one.send_json({"type": "edit", "frame": 2, "runs": runs, "what": "Brush"})
        for opened in (one, two):
            state, frames, mask = (opened.receive_json() for _ in range(3))
            assert (state["keys"], state["undo"]) == ([2], "Brush")
            assert len(frames["frames"]) == FRAMES
            assert (mask["frame"], mask["runs"]) == (2, runs)


MALFORMED = [
    "",
    "{",
    "null",
    "[]",
    '"undo"',
    "{}",
    '{"type": "format-disk"}',
    '{"type": "undo", "path": "/etc/passwd"}',
    '{"type": "edit", "frame": -1, "runs": []}',
    '{"type": "edit", "frame": 0, "runs": "all"}',
    '{"type": "edit", "frame": 0, "runs": [1e400]}',
    '{"type": "first", "request": 0, "frame": 0, "box": [1, 2, 3]}',
    '{"type": "first", "request": 0, "frame": 0, "box": [NaN, 0, 1, 1]}',
    '{"type": "change-object", "object": 1, "colour": "red;}"}',
    "[" * 100_000,
]


def test_an_edit_is_answered_after_what_it_changed_to_who_made_it(client):
    """The page shows its own label map until then: an answer to an edit of before would overwrite it."""
    with socket(client) as opened, socket(client) as other:
        for each in (opened, other):
            assert [each.receive_json()["type"] for _ in range(2)] == ["state", "frames"]
        opened.send_json({"type": "edit", "frame": 2, "runs": [0, 100, 1, 20, 0, 64 * 96 - 120]})
        assert [opened.receive_json()["type"] for _ in range(4)] == ["state", "frames", "mask", "edited"]
        opened.send_json({"type": "edit", "frame": 2, "runs": [7, 64 * 96]})
        assert opened.receive_json()["type"] == "notice"
        assert opened.receive_json() == {"type": "edited", "frame": 2}
        other.send_json({"type": "look", "frames": [2]})
        assert [other.receive_json()["type"] for _ in range(4)] == ["state", "frames", "mask", "mask"]


def test_a_malformed_message_closes_its_socket_and_nothing_else(client, desk):
    before = desk.state()
    with socket(client) as bystander:
        bystander.receive_json()
        bystander.receive_json()
        for text in MALFORMED:
            with socket(client) as opened:
                opened.receive_json()
                opened.receive_json()
                opened.send_text(text)
                assert opened.receive()["type"] == "websocket.close", text[:60]
        with socket(client) as opened:
            opened.receive_json()
            opened.receive_json()
            opened.send_bytes(b"\x00\xff")
            assert opened.receive()["type"] == "websocket.close"
        bystander.send_json({"type": "look", "frames": [0]})
        assert bystander.receive_json()["type"] == "mask"
    assert desk.state() == before


@pytest.mark.parametrize("seed", range(3))
def test_garbled_messages_do_no_harm(client, desk, seed):
    """Valid commands, cut, doubled, and with bytes and numbers changed: each is done, refused, or closes its socket."""
    desk.project.change("Brush", {2: square(desk.project.shape, 8, 8)})
    random_ = random.Random(seed)
    runs = runlengths.encode(square(desk.project.shape, 20, 20))
    valid = [
        {"type": "edit", "frame": 2, "runs": runs, "what": "Brush"},
        {"type": "look", "frames": [0, 1, 2]},
        {"type": "shape", "frame": 2, "object": 1, "do": "grow"},
        {"type": "change-object", "object": 1, "name": "Car", "colour": "#ff0000", "visible": True},
        {"type": "add-object", "name": "Ball"},
        {"type": "remove-object", "object": 2},
        {"type": "keep", "frame": 2},
        {"type": "undo"},
        {"type": "redo"},
        {"type": "choose", "method": "ttvos-lite"},
    ]
    for _ in range(20):
        with socket(client) as opened:
            for _ in range(5):
                text = list(json.dumps(random_.choice(valid)))
                for _ in range(random_.choice([0, 1, 1, 2, 5])):
                    at = random_.randrange(len(text))
                    text[at] = random_.choice(["", "-", "9" * 30, '"', "{", "}", "null", "\u0000", "é", "1e9"])
                opened.send_text("".join(text))
            while opened.receive()["type"] not in ("websocket.close",):
                opened.send_text("no command")  # the last word: it closes the socket
    again = Project.open(desk.project.folder, None, MethodChoice("stub"))
    assert (again.keys, again.objects, again.to_undo) == (desk.project.keys, desk.project.objects, desk.project.to_undo)
    assert client.get("/api/state").status_code == 200


def test_a_video_is_uploaded_and_opened_in_a_project_of_its_own(client, studio, video_file):
    before = studio.desk.project.folder
    with socket(client) as opened:
        opened.receive_json()
        opened.receive_json()
        title = "../../etc/<b>passwd</b>.mp4"
        given = client.post("/api/videos", params={"name": title}, content=video_file.read_bytes())
        assert given.json()["video"]["name"] == title
        assert opened.receive_json() == {"type": "opened"}
        assert opened.receive()["type"] == "websocket.close"
    folder = studio.desk.project.folder
    assert (folder.name, folder.parent) == ("etc-b-passwd-b.studio", before.parent)
    assert {key: given.json()["video"][key] for key in ("frames", "fps")} == {"frames": 5, "fps": 25}
    assert sorted(path.name for path in before.parent.glob(".studio*")) == []
    listed = client.get("/api/projects").json()["projects"]
    assert [(each["name"], each["open"]) for each in listed] == [(title, True), ("shapes", False)]
    again = client.post(f"/api/projects/{listed[1]['id']}", content=b"")
    assert (again.json()["video"]["name"], studio.desk.project.folder.name) == ("shapes", before.name)
    assert client.post("/api/projects/1234", content=b"").status_code == 400
    assert client.post("/api/projects/..%2f..%2fetc", content=b"").status_code in (404, 405)
    assert Project.open(folder, None, MethodChoice("stub")).name == title


@pytest.mark.parametrize("first_to_go", ["server", "page"])
def test_who_goes_in_mid_upload_leaves_no_traceback_and_no_half_video(studio, first_to_go, caplog, monkeypatch):
    before = studio.desk.project.folder
    left = {path.name for path in before.parent.iterdir()}
    server = Server(make_app(studio, TOKEN, None))
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)  # else caplog hears nothing
    with closing(socket_.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        with socket_.create_connection(listening.getsockname()) as page:
            head = "POST /api/videos?name=clip.mp4 HTTP/1.1", "Host: x", "Content-Length: 1000000"
            page.sendall("\r\n".join([*head, f"Authorization: Bearer {TOKEN}", "", ""]).encode() + bytes(1000))
            until(lambda: list(before.parent.glob(".studio-*.partial/received")))
            if first_to_go == "page":
                page.close()
                until(lambda: not list(before.parent.glob(".studio-*")))
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()
    assert caplog.records == []
    assert {path.name for path in before.parent.iterdir()} == left
    assert Project.open(before, None, MethodChoice("another")).name == "shapes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0\0\0\x18ftypisom" + bytes(500),
        b"<svg onload=alert(1)>",
    ],
)
def test_what_is_no_video_is_refused_and_nothing_is_left_of_it(client, studio, content):
    before = studio.desk
    given = client.post("/api/videos?name=clip.mp4", content=content)
    assert given.status_code == 400
    assert str(before.project.folder.parent) not in given.json()["problem"]
    assert studio.desk is before
    assert {path.name for path in before.project.folder.parent.iterdir()} == {before.project.folder.name, "recent.json"}


def test_elsewhere_than_on_this_machine_a_token_is_needed_and_tls_is_the_proxy_s(
    folder_of_frames, tmp_path, stub, monkeypatch
):
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    monkeypatch.setattr("onemask.studio.desk.Desk.warm_up", lambda self: None)

    def said(host: str, token: str | None) -> str:
        lines: list[str] = []
        serve(
            str(folder_of_frames),
            tmp_path / "project",
            MethodChoice(stub),
            host=host,
            port=0,
            token=token,
            largest_upload=2**20,
            say=lines.append,
            browse=False,
        )
        return "\n".join(lines)

    assert re.search(r"\?token=[\w-]{32}\n.*put a TLS proxy in front", said("0.0.0.0", None))
    assert "TLS" not in said("127.0.0.1", TOKEN)
    for token in ("", "short"):
        with pytest.raises(InputError, match="16 characters"):
            said("0.0.0.0", token)


def test_what_cannot_be_done_is_told_to_who_asked(client):
    with socket(client) as opened:
        opened.receive_json()
        opened.receive_json()
        opened.send_json({"type": "undo"})
        assert opened.receive_json()["text"] == "there is nothing to undo"
    assert client.post("/api/commands", json={"type": "undo"}).status_code == 400
    assert client.post("/api/commands", json={"type": "format"}).status_code == 422
    nested = client.post("/api/commands", content=b"[" * 100_000, headers={"content-type": "application/json"})
    for refused in (nested, client.get("/api/nothing"), client.get("/api/projects/1")):
        assert refused.status_code in (400, 404, 405)
        assert list(refused.json()) == ["problem"]


def test_a_mask_file_is_read_and_comes_back(client, desk, tmp_path):
    labels = square(desk.project.shape, 8, 8) + square(desk.project.shape, 30, 50, object_id=3)
    write_mask(tmp_path / "mask.png", labels)
    given = client.post("/api/masks/4", content=(tmp_path / "mask.png").read_bytes())
    assert "1, 3" in given.json()["read"]
    assert [thing.id for thing in desk.project.objects] == [1, 3]
    back = cv2.imdecode(np.frombuffer(client.get("/api/masks/4.png").content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert back is not None
    assert np.array_equal(desk.shown(4), labels)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(50), b"<svg onload=alert(1)>", bytes(1000)])
def test_what_is_no_mask_file_is_refused(client, desk, content):
    given = client.post("/api/masks/4", content=content)
    assert given.status_code == 400
    assert "/" not in given.json()["problem"].partition(":")[0]
    assert desk.project.keys == {}


def test_a_huge_upload_is_refused_before_it_is_read(client, desk):
    read = 0

    def gigabyte():
        nonlocal read
        for _ in range(1024):
            read += 1
            yield bytes(2**20)

    headers = {"content-length": str(2**30)}
    assert client.post("/api/masks/0", content=gigabyte(), headers=headers).status_code == 413
    assert client.post("/api/masks/0", content=gigabyte()).status_code == 411
    assert client.post("/api/videos?name=long.mp4", content=gigabyte(), headers=headers).status_code == 413
    assert read == 0
    assert client.post("/api/commands", content=b" " * (LARGEST_BODY + 1)).status_code == 413
    assert desk.project.keys == {}


def test_the_api_describes_itself_with_every_command(client):
    schema = json.dumps(client.get("/api/openapi.json").json())
    for command in ("propagate", "edit", "first", "undo", "add-object"):
        assert f'"const": "{command}"' in schema


def test_what_is_exported_is_what_is_shown(client, desk, tmp_path):
    labels = square(desk.project.shape, 8, 8)
    desk.project.change("Brush", {3: labels})
    given = client.post("/api/exports/png", content=b"").json()
    assert given["name"] == "shapes-png.zip"
    archive = tmp_path / "masks.zip"
    archive.write_bytes(client.get(given["file"]).content)
    with zipfile.ZipFile(archive) as masks:
        assert masks.namelist() == [f"{index:03d}.png" for index in range(FRAMES)]
        masks.extractall(tmp_path)
    assert np.array_equal(read_label_map(tmp_path / "003.png"), labels)
    table = client.post("/api/exports/csv", content=b"").json()["file"]
    assert "3,003,,1,256,8,8,16,16" in client.get(table).text
    assert client.post("/api/exports/%2e%2e", content=b"").status_code in (400, 404, 405)
    assert client.get("/api/exports/overlay/file").status_code == 400


def test_edges_of_alpha_are_softened_and_of_nothing_else(client, desk, tmp_path):
    labels = square(desk.project.shape, 8, 8)
    desk.project.change("Brush", {3: labels})
    assert client.get("/api/state").json()["edges"][:2] == ["none", "guided"]
    softened = {}
    for matte in ("none", "guided"):
        given = client.post(f"/api/exports/alpha?matte={matte}", content=b"").json()
        (tmp_path / "alpha.zip").write_bytes(client.get(given["file"]).content)
        with zipfile.ZipFile(tmp_path / "alpha.zip") as mattes:
            alpha = cv2.imdecode(np.frombuffer(mattes.read("1/003.png"), np.uint8), cv2.IMREAD_UNCHANGED)
        softened[matte] = int(((alpha > 0) & (alpha < 255)).sum())
        assert np.array_equal(matte_of_frame_3(client, matte), alpha)
    assert softened["none"] == 0 < softened["guided"]
    for name, matte, problem in (("png", "guided", "has no alpha"), ("alpha", "airbrush", "matte must be one of none")):
        answer = client.post(f"/api/exports/{name}?matte={matte}", content=b"")
        assert answer.status_code == 400
        assert problem in answer.json()["problem"]


def matte_of_frame_3(client, edges: str) -> np.ndarray:
    matte = cv2.imdecode(np.frombuffer(client.get(f"/api/mattes/3.png?edges={edges}").content, np.uint8), -1)
    assert matte is not None
    return matte


def test_a_matte_is_of_what_is_visible_now(client, desk):
    one, two = square(desk.project.shape, 8, 8), square(desk.project.shape, 8, 60, object_id=2)
    client.post("/api/commands", json={"type": "add-object"})
    desk.project.change("Brush", {3: one + two})
    both = matte_of_frame_3(client, "guided")
    client.post("/api/commands", json={"type": "change-object", "object": 2, "visible": False})
    left = matte_of_frame_3(client, "guided")
    assert np.array_equal(left[:, :40], both[:, :40])
    assert both[:, 40:].any()
    assert not left[:, 40:].any()
    client.post("/api/commands", json={"type": "clear", "frame": 3})
    assert not matte_of_frame_3(client, "guided").any()
    assert client.get(f"/api/mattes/{FRAMES}.png").status_code == 400
    assert client.get("/api/mattes/3.png?edges=../3").status_code == 400


def test_the_page_that_ships_is_built_from_the_sources_that_lie_here():
    sources = Path(__file__).parents[2] / "studio" / "src"
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir(), key=lambda path: path.name.encode()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    built_from = (files("onemask.studio") / "static" / "built-from.txt").read_text().strip()
    assert built_from == digest.hexdigest(), "run: cd studio && npm ci && npm run build"
