"""A small server that speaks OpenAI's protocol on a real socket, and misbehaves as its script says.

Its model answers with the seed: choice j's text is the seed plus j, each digit is a token, and digit d has the log-prob
-(d + 1) / 10. So the seed alone gives the right answer.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Misbehaviour = Callable[["Handler", dict[str, Any], dict[str, Any]], None]
"""Answers one request, from the handler, the request's body and the right answer."""


class Server:
    def __init__(self, port: int = 0, seconds: float = 0.0, log: str = os.devnull) -> None:
        self.log = open(log, "a", buffering=1)  # noqa: SIM115 - as long as the server lives
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.times: list[float] = []
        self.keys: list[str] = []
        self.script: deque[Misbehaviour] = deque()
        self.always: Misbehaviour = well
        self.models = ["tiny"]
        self.seconds = seconds
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Bound", (Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self.log.close()


class Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body go in one packet: a second packet would wait for the first one's acknowledgement

    def do_GET(self) -> None:
        self.send_json(200, {"object": "list", "data": [{"id": name} for name in self.owner.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.path, body))
            owner.log.write(json.dumps(body) + "\n")
            owner.times.append(time.monotonic())
            owner.keys.append(self.headers["Authorization"])
            owner.under_way += 1
            owner.most_under_way = max(owner.most_under_way, owner.under_way)
            misbehave = owner.script.popleft() if owner.script else owner.always
        try:
            time.sleep(owner.seconds)
            right = {"object": "answer", "choices": [choice(self.path, body, j) for j in range(body["n"])]}
            misbehave(self, body, right)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.under_way -= 1

    def send_json(self, status: int, answer: object, **headers: str) -> None:
        self.send_bytes(status, json.dumps(answer).encode(), **headers)

    def send_bytes(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        named = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in (named | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def choice(path: str, body: dict[str, Any], j: int) -> dict[str, Any]:
    text = str(body["seed"] + j)
    logps = [-(int(digit) + 1) / 10 for digit in text]
    made = {"index": j, "finish_reason": "stop"}
    if body.get("return_token_ids"):
        made["token_ids"] = [int(digit) for digit in text]
    if path.endswith("/chat/completions"):
        content = [{"token": digit, "logprob": logp} for digit, logp in zip(text, logps, strict=True)]
        return made | {"message": {"role": "assistant", "content": text}, "logprobs": {"content": content}}
    return made | {"text": text, "logprobs": {"tokens": list(text), "token_logprobs": logps}}


def status(code: int, message: str = "", **headers: str) -> Misbehaviour:
    return lambda handler, body, right: handler.send_json(code, {"error": {"message": message}}, **headers)


def well(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    handler.send_json(200, right)


def late(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    time.sleep(0.3)
    handler.send_json(200, right)


def by_prompt(**of: Misbehaviour) -> Misbehaviour:
    """For requests that arrive in any order."""
    return lambda handler, body, right: of.get(body["prompt"], well)(handler, body, right)


def drop(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    handler.close_connection = True


def stall(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    handler.close_connection = True
    handler.owner.closing.wait(5)


def trickle(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    """Sends a byte now and then, so that no single wait is long."""
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    while not handler.owner.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut_off(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    """Half of the body, under a header that promises all of it."""
    content = json.dumps(right).encode()
    handler.close_connection = True
    handler.send_bytes(200, content[: len(content) // 2], Content_Length=str(len(content)))


def cut_json(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    content = json.dumps(right).encode()
    handler.send_bytes(200, content[: len(content) // 2])


def changed(change: Callable[[list[dict[str, Any]]], object]) -> Misbehaviour:
    """The right answer after ``change`` of its choices."""

    def answer(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
        change(right["choices"])
        handler.send_json(200, right)

    return answer


def ignore_sampling(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    """A server that ignores temperature and seed and gives no log-probs. It gives the same answer to every request for
    a prompt, and the number of tokens of all choices together."""
    asked = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    text = f"Seven steps to {sum(map(ord, asked)) % 97}"
    for one in right["choices"]:
        one |= {"message": {"role": "assistant", "content": text}, "text": text, "logprobs": None}
        one.pop("token_ids", None)
        one.pop("text" if "messages" in body else "message")
    usage = {"prompt_tokens": 9, "completion_tokens": 5 * body["n"], "total_tokens": 9 + 5 * body["n"]}
    handler.send_json(200, right | {"usage": usage})


def refuse_extras(handler: Handler, body: dict[str, Any], right: dict[str, Any]) -> None:
    """Refuse the extensions, as OpenAI's server does."""
    if "return_token_ids" in body:
        handler.send_json(400, {"error": {"message": "Unrecognized request argument supplied: return_token_ids"}})
    else:
        handler.send_json(200, right)


if __name__ == "__main__":  # a server in its own process, which can be killed: PORT SECONDS_AN_ANSWER LOG
    print(Server(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]).url, flush=True)
    threading.Event().wait()
