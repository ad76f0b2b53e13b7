"""A web server on this machine that serves files well, or badly in one of the ways that the real ones know."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """A file as served; each request takes the next fault, and is answered well when none is left."""

    body: bytes
    etag: str | None = '"1"'
    date: str | None = None
    faults: "list[Fault]" = field(default_factory=list)


@dataclass
class Request:
    """What was asked, and how many bytes of the file were sent for it."""

    name: str
    range: str | None
    if_range: str | None
    sent: int = 0


@dataclass
class Exchange:
    """One request and the means to answer it."""

    handler: BaseHTTPRequestHandler
    file: File
    request: Request

    def answer(self, status: int, headers: dict[str, object], body: bytes = b"") -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.handler.send_header(name, str(value))
        self.handler.send_header("Connection", "close")  # as the server does, and the client asks for
        self.handler.end_headers()
        self.request.sent = len(body)
        self.handler.wfile.write(body)

    def serve(self, only: int | None = None, length: int | None = None, ranges: bool = True) -> None:
        """Answer as RFC 9110 says, but send `only` so many bytes, announce another length, or ignore ranges."""
        body, start, status, extra = self.file.body, 0, 200, {}
        current = self.request.if_range in {None, self.file.etag, self.file.date}
        if ranges and self.request.range and current:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.request.range)[1])
            status, extra = 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            if start >= len(body):
                self.answer(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": 0})
                return
        headers = {"ETag": self.file.etag, "Last-Modified": self.file.date, **extra}
        headers["Content-Length"] = len(body) - start if length is None else length
        self.answer(status, headers, body[start:][:only])


Fault = Callable[[Exchange], None]


@dataclass
class Site:
    """The server, its files by name, and the requests it got."""

    address: str
    files: dict[str, File] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    looks: int = 0

    def put(self, name: str, body: bytes, *faults: Fault, **kwargs: str | None) -> str:
        """Serve a file, and return its address."""
        self.files[name] = File(body, faults=list(faults), **kwargs)
        return f"{self.address}/{name}"

    @property
    def asked(self) -> list[str]:
        return [request.name for request in self.requests]

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.requests]

    @property
    def sent(self) -> list[int]:
        return [request.sent for request in self.requests]


@contextmanager
def serving() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            request = Request(self.path.removeprefix("/"), self.headers["Range"], self.headers["If-Range"])
            site.requests.append(request)
            file = site.files[request.name]
            exchange = Exchange(self, file, request)
            (file.faults.pop(0) if file.faults else Exchange.serve)(exchange)

        def do_HEAD(self) -> None:
            self.close_connection = True
            file = site.files.get(self.path.removeprefix("/"))
            site.looks += 1
            self.send_response(200 if file else 404)
            if file:
                told = {"ETag": file.etag, "Last-Modified": file.date, "Content-Length": str(len(file.body))}
                for name, value in told.items():
                    if value is not None:
                        self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


def drop(after: int) -> Fault:
    """Close the connection when so many bytes were sent."""
    return lambda exchange: exchange.serve(only=after)


def announce(length: int) -> Fault:
    """Send the file, whatever its length, under this Content-Length."""
    return lambda exchange: exchange.serve(length=length)


def unannounced(exchange: Exchange) -> None:
    """Send the file, do not announce its length, and close the connection."""
    exchange.answer(200, {"ETag": exchange.file.etag}, exchange.file.body)


def ignore_range(exchange: Exchange) -> None:
    """Send the whole file, whatever was asked for."""
    exchange.serve(ranges=False)


def status(code: int, **headers: str) -> Fault:
    """Answer with this status; underscores in headers' names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.answer(code, {**named, "Content-Length": 0})


def page(exchange: Exchange) -> None:
    """Send an HTML page under the file's name."""
    body = b"\n<html>We have moved</html>"
    exchange.answer(200, {"Content-Length": len(body), "ETag": '"page"'}, body)


def change(body: bytes, etag: str, then: Fault = Exchange.serve) -> Fault:
    """Replace the file, then answer."""

    def changed(exchange: Exchange) -> None:
        exchange.file.body, exchange.file.etag = body, etag
        then(exchange)

    return changed


def chunked(cut_short: bool = False) -> Fault:
    """Send the file in chunks, its length not announced; `cut_short`: break off in the second of them."""

    def send(exchange: Exchange) -> None:
        exchange.answer(200, {"Transfer-Encoding": "chunked", "ETag": exchange.file.etag})
        write, body = exchange.handler.wfile.write, exchange.file.body
        write(b"%x\r\n%s\r\n" % (100, body[:100]))
        write(b"%x\r\n" % (len(body) - 100) + (body[100:150] if cut_short else body[100:] + b"\r\n0\r\n\r\n"))

    return send


def reset(exchange: Exchange) -> None:
    """Break the connection before an answer."""
    linger_not = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    exchange.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    exchange.handler.connection.close()
