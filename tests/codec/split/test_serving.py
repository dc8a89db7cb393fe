import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from slimwright.codec.split.asking import Server, asked
from slimwright.codec.split.bundle import Bundle, load_split
from slimwright.codec.split.serving import app_of
from slimwright.codec.split.sides import PhoneSide, ServerSide, image_in, token_in
from slimwright.errors import CodecError, DataError, DeviceError, RequestError
from small_digits import few_digits
from small_split import small_split

TOKEN, WRONG = "a secret of enough letters".replace(" ", "-"), "another-secret-of-letters"
ARRIVAL_S = 0.5


@pytest.fixture(scope="module")
def bundle(run_folder: Path, cache: Path) -> Bundle:
    return load_split(small_split(run_folder, cache))


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    """A server on this machine, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = app_of(ServerSide.of(bundle), TOKEN, arrival_s=ARRIVAL_S)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def message(bundle: Bundle) -> bytes:
    images, _ = few_digits().parts["test"]
    return PhoneSide.of(bundle).message([images[:1].numpy()])  # type: ignore[union-attr]


def posted(url: str, data: bytes, token: str = TOKEN, path: str = "/answer") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("POST", path, data, {"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    return response.status, response.read()


def test_the_server_answers_what_its_part_gives(bundle: Bundle, url: str, message: bytes) -> None:
    (found,) = asked(Server(url, TOKEN), message, bundle)
    (expected,) = asked(Server(url + "/", TOKEN), message, bundle)
    assert found.shape == (1, 10) and np.array_equal(found, expected)


def test_a_damaged_message_is_refused_by_status_and_error(bundle: Bundle, url: str, message: bytes) -> None:
    for damaged in (message[:-1], message[:3], b"", bytes([message[0]]) + message[:0:-1], message + b"x"):
        assert posted(url, damaged)[0] in (400, 413)
        with pytest.raises(CodecError, match="refused the message"):
            asked(Server(url, TOKEN), damaged, bundle)


def test_a_large_body_is_refused_before_it_is_read(bundle: Bundle, url: str) -> None:
    assert posted(url, bytes(bundle.most_bytes + 1))[0] == 413


def test_without_the_token_nothing_is_told(bundle: Bundle, url: str, message: bytes) -> None:
    assert posted(url, message, WRONG)[0] == 401
    assert posted(url, message, TOKEN + "x")[0] == 401
    with pytest.raises(RequestError, match="token"):
        asked(Server(url, WRONG), message, bundle)
    assert posted(url, b"", path="/docs")[0] == 404


def test_a_body_that_does_not_arrive_is_given_up(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/answer")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"half")
    assert connection.getresponse().status == 408


def test_a_server_that_is_gone_is_told(bundle: Bundle, message: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DeviceError, match="cannot be reached"):
        asked(Server(f"http://127.0.0.1:{port}", TOKEN), message, bundle)


def test_a_server_that_says_nothing_is_left_in_time(bundle: Bundle, message: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = Server(f"http://127.0.0.1:{listening.getsockname()[1]}", TOKEN, seconds=0.3)
        with pytest.raises(DeviceError, match="did not answer within"):
            asked(where, message, bundle)


@pytest.mark.parametrize(
    ("answer", "wrong", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone", CodecError, "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", CodecError, "cannot be read"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10**6), DeviceError, "more than"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", DeviceError, "302"),
        (b"nonsense\r\n\r\n", DeviceError, "cannot be reached"),
        (b"", DeviceError, "cannot be reached"),
    ],
)
def test_a_server_that_answers_something_else_is_told(
    bundle: Bundle, message: bytes, answer: bytes, wrong: type[Exception], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def once() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as asked_for:  # bytes left unread would reset the connection
                asked_for.readline()
                asked_for.read(int(http.client.parse_headers(asked_for)["Content-Length"]))
                connection.sendall(answer)
                time.sleep(0.05)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(wrong, match=said):
            asked(Server(f"http://127.0.0.1:{listening.getsockname()[1]}", TOKEN, seconds=5), message, bundle)
        thread.join()


@pytest.mark.parametrize("where", ["127.0.0.1:8080", "file:///etc/passwd", "http://"])
def test_what_is_no_server_is_refused(where: str) -> None:
    with pytest.raises(RequestError, match="is not a server"):
        Server(where, TOKEN)


@pytest.mark.parametrize("text", ["short", "a secret of enough letters", "ünpräntable-secret-of-letters", ""])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(RequestError, match="is not a token"):
        token_in(tmp_path / "token")


def test_a_message_needs_an_image_of_the_right_shape(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="takes"):
        PhoneSide.of(bundle).message([np.zeros((1, 3, 8, 8), np.float32)])


def test_a_picture_is_prepared_as_the_data_was(bundle: Bundle, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (32, 32), 255).save(tmp_path / "white.png")
    found = image_in(tmp_path / "white.png", bundle.manifest)
    assert found.shape == (1, *bundle.manifest.input_shape) and float(found.std()) < 1e-4
    (tmp_path / "none.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read"):
        image_in(tmp_path / "none.png", bundle.manifest)
