"""The agent's server as a stranger sees it: raw requests, on the loopback address."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimwright.runner import VERSION, pipe, serve
from slimwright.runner.pack import packed_files
from slimwright.runner.serve import Agent, token_in
from slimwright.runner.signing import BODY, CHALLENGE, NONCE, SIGNATURE, answer_signature, request_signature, sha256

TOKEN = "t" * 40
JOB = packed_files({"job.json": b"{}"})


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("127.0.0.1", 0, TOKEN) as found:
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        yield found
        found.stop()
        found.shutdown()


def ask(
    agent: Agent, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.server_port, timeout=10)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers.get(SIGNATURE, "")


def nonce(agent: Agent) -> str:
    found: str = json.loads(ask(agent, "GET", "/hello")[1])["nonce"]
    return found


def signed(agent: Agent, path: str, body: bytes = b"", *, method: str = "POST", token: str = TOKEN) -> dict[str, str]:
    given, hashed = nonce(agent), sha256(body)
    found = {NONCE: given, CHALLENGE: "c" * 32, BODY: hashed}
    return found | {SIGNATURE: request_signature(token, (method, path), given, "c" * 32, hashed)}


def reason(body: bytes) -> str:
    found: str = json.loads(body)["error"]
    return found


def test_everybody_learns_who_this_is(agent: Agent) -> None:
    status, body, signature = ask(agent, "GET", "/hello")
    hello = json.loads(body)
    assert (status, signature) == (200, "")
    assert (hello["agent"], hello["version"], hello["busy"]) == ("slimwright", VERSION, False)
    assert hello["nonce"] != nonce(agent)


def test_an_answer_is_signed(agent: Agent) -> None:
    headers = signed(agent, "/about")
    status, body, signature = ask(agent, "POST", "/about", b"", headers)
    assert status == 200
    assert "cpu" in json.loads(body)
    assert signature == answer_signature(TOKEN, headers[SIGNATURE], 200, body)


def test_a_request_is_good_once(agent: Agent) -> None:
    headers = signed(agent, "/about")
    assert ask(agent, "POST", "/about", b"", headers)[0] == 200
    status, body, _ = ask(agent, "POST", "/about", b"", headers)
    assert (status, reason(body)) == (403, "the nonce is not good any more")


def test_what_is_not_signed_for_this_is_refused(agent: Agent) -> None:
    good = signed(agent, "/about")
    cases = [
        ("/about", b"", {}),
        ("/about", b"", signed(agent, "/about", token="x" * 40)),
        ("/about", b"", signed(agent, "/about", method="GET")),
        ("/job?seconds=5", b"", good),
        ("/about?x", b"", good),
        ("/about", b"", good | {CHALLENGE: "other"}),
        ("/about", b"", good | {BODY: sha256(b"x")}),
        ("/about", b"", good | {NONCE: nonce(agent)}),
        ("/about", b"", good | {SIGNATURE: "é" * 64}),
        ("/about", b"", good | {SIGNATURE: ""}),
    ]
    for path, body, headers in cases:
        encoded = {name: value.encode("latin-1").decode("latin-1") for name, value in headers.items()}
        status, answered, signature = ask(agent, "POST", path, body, encoded)
        assert (status, signature) == (401, ""), path
        assert reason(answered) == "the token is not this agent's"
    assert ask(agent, "POST", "/about", b"", good)[0] == 200  # it was not used up


def test_another_body_than_was_signed_is_refused(agent: Agent) -> None:
    status, body, _ = ask(agent, "POST", "/job?seconds=5", b"evil", signed(agent, "/job?seconds=5", JOB))
    assert (status, reason(body)) == (400, "the body is not the one that was signed")


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "/../../etc/passwd", "/hello?x", "/about", "/job"])
def test_there_is_nothing_else_to_get(path: str, agent: Agent) -> None:
    assert ask(agent, "GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/hello", "/etc/passwd", "/job/../../x"])
def test_there_is_nothing_else_to_post_to(path: str, agent: Agent) -> None:
    assert ask(agent, "POST", path, b"", signed(agent, path))[0] == 404


@pytest.mark.parametrize(
    "query", ["", "?seconds=", "?seconds=0", "?seconds=-1", "?seconds=nan", "?seconds=1e9", "?seconds=1&seconds=2"]
)
def test_a_job_must_tell_its_time(query: str, agent: Agent) -> None:
    status, body, _ = ask(agent, "POST", f"/job{query}", JOB, signed(agent, f"/job{query}", JOB))
    assert status == 400
    assert "seconds" in reason(body)


def test_a_job_that_is_none_is_answered(agent: Agent) -> None:
    status, body, _ = ask(agent, "POST", "/job?seconds=20", b"junk", signed(agent, "/job?seconds=20", b"junk"))
    assert status == 200
    assert b'"kind": "job"' in body


@pytest.mark.parametrize("length", ["", "-1", "x", "9" * 20, "0x10", "1, 1"])
def test_a_length_that_is_none_is_refused(length: str, agent: Agent) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(agent, "/about").items())
    tell = f"Content-Length: {length}\r\n" if length else ""
    with socket.create_connection(("127.0.0.1", agent.server_port), timeout=10) as raw:
        raw.sendall(f"POST /about HTTP/1.0\r\n{headers}{tell}\r\n".encode())
        assert b" 411 " in raw.recv(1 << 16)


def test_a_body_that_is_too_large_is_refused_unread(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_BYTES", 1000)
    path, body = "/job?seconds=5", bytes(1001)
    status, answered, _ = ask(agent, "POST", path, body, signed(agent, path, body))
    assert (status, reason(answered)) == (413, "the job has 1001 bytes; this agent takes at most 1000")


def test_a_large_body_of_a_stranger_is_not_kept(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_UNSIGNED_BYTES", 4096)
    with socket.create_connection(("127.0.0.1", agent.server_port), timeout=10) as raw:
        raw.sendall(b"POST /job HTTP/1.0\r\nContent-Length: 999999999999\r\n\r\n" + bytes(4096))
        assert b" 401 " in raw.recv(1 << 16)


def test_one_job_at_a_time(agent: Agent) -> None:
    path = "/job?seconds=5"
    with agent.at_work:
        assert json.loads(ask(agent, "GET", "/hello")[1])["busy"]
        headers = signed(agent, path, JOB)
        status, body, signature = ask(agent, "POST", path, JOB, headers)
    assert status == 409
    assert "another job is under way" in reason(body)
    assert signature == answer_signature(TOKEN, headers[SIGNATURE], 409, body)
    assert ask(agent, "POST", path, b"junk", signed(agent, path, b"junk"))[0] == 200


def still_serves(agent: Agent) -> bool:
    """Whether it answers, now or once it has noticed that others went away."""
    for _ in range(100):
        try:
            return ask(agent, "GET", "/hello")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.05)
    return False


def closed(raw: socket.socket) -> bool:
    try:
        return raw.recv(1 << 16) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /hello HTTP/1.0\r\nA: b\r\n", b"GET /hel"])
def test_slow_headers_time_out(sent: bytes, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "HEADERS_S", 0.2)
    with socket.create_connection(("127.0.0.1", agent.server_port), timeout=10) as raw:
        raw.sendall(sent)
        assert closed(raw)


def test_a_slow_body_times_out(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "WAIT_S", 0.2)
    path, body = "/job?seconds=5", bytes(5000)
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(agent, path, body).items())
    with socket.create_connection(("127.0.0.1", agent.server_port), timeout=10) as raw:
        raw.sendall(f"POST {path} HTTP/1.0\r\n{headers}Content-Length: 5000\r\n\r\n".encode())
        for _ in range(100):
            try:
                raw.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.05)
        assert closed(raw)
    assert not agent.at_work.locked()


def test_too_many_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_CONNECTIONS", 2)
    with Agent("127.0.0.1", 0, TOKEN) as agent:
        threading.Thread(target=agent.serve_forever, args=(0.05,), daemon=True).start()
        places = [socket.create_connection(("127.0.0.1", agent.server_port), timeout=10) for _ in range(3)]
        assert closed(places[2])
        for place in places:
            place.close()
        assert still_serves(agent)
        agent.shutdown()


def test_an_agent_that_ends_takes_no_more_jobs(agent: Agent) -> None:
    agent.stopping.set()
    assert ask(agent, "POST", "/job?seconds=5", JOB, signed(agent, "/job?seconds=5", JOB))[0] == 503


def test_a_crash_of_the_agent_itself_is_no_answer(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("broken")

    monkeypatch.setattr(pipe, "answer", fail)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(agent, "POST", "/job?seconds=5", JOB, signed(agent, "/job?seconds=5", JOB))
    assert not agent.at_work.locked()


def test_a_token_is_made_once_and_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "token"
    token = token_in(path)
    assert token_in(path) == token
    printed = capsys.readouterr().out
    assert printed.count(token) == 1
    for text in ("short", "", "x" * 20 + "\0"):
        path.write_text(text)
        with pytest.raises(ValueError, match="holds no token"):
            token_in(path)
