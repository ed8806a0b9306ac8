"""The server: for this machine only, read-only, and restricted to listed files."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from scoredistill.cli.commands import describe
from scoredistill.cli.run_config import read_config
from scoredistill.cli.viewer.run_page import files, find_scenes, last_checkpoint, report
from scoredistill.cli.viewer.workshop import MakingError, Workshop
from scoredistill.files import json_text
from scoredistill.training.run_folder import RunFolder, read_curves

PAGE = ("index.html", "page.js", "curve.js", "scenes.js", "page.css", "model-viewer.min.js")
MADE = re.compile(r"/made/(step_\d+_[0-9a-f]+)/particle_(\d+)\.(glb|webp)")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".yaml": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".webp": "image/webp",
    ".glb": "model/gltf-binary",
}
# The page loads nothing from other hosts; model-viewer creates blobs for textures and workers, and inline styles.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'wasm-unsafe-eval'; worker-src blob:; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """Serves the page of a run.

    Args:
        host: a loopback address.
        port: 0 selects a free port.
        run: the run.

    Raises:
        OSError: if the port is not available.
        UsageError: if the run's recipe is damaged.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, run: RunFolder) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.run = run
        self.workshop: Workshop | None = None
        scenes = find_scenes(read_config(run.config))
        super().__init__((host, port), _Handler)
        if scenes is not None:
            self.workshop = Workshop(run.path, scenes.particles)

    @property
    def address(self) -> str:
        """The URL for the browser."""
        host = str(self.server_address[0])
        port = self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_close(self) -> None:
        """Free the port, and wait for running exports."""
        super().server_close()
        if self.workshop is not None:
            self.workshop.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore closed connections of the browser."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond to a request, with a JSON message if it is refused."""
        try:
            self._check_host()
            status, content, kind = self._answer(unquote(urlsplit(self.path).path))
        except _Refused as refusal:
            status = refusal.status
            content = _json({"error": str(refusal)})
            kind = KINDS[".json"]
        except Exception as error:  # a file of the run cannot be read: the page shows which
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content = _json({"error": describe(error)})
            kind = KINDS[".json"]
        self._send(status, content, kind)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _check_host(self) -> None:
        """Accept only names of this machine, so that a page on another host cannot read a run by DNS rebinding."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        try:
            fits = name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            fits = False
        if not fits:
            raise _Refused(HTTPStatus.FORBIDDEN, "this page is only available on the machine that serves it")

    def _answer(self, path: str) -> tuple[HTTPStatus, bytes, str]:
        run = cast(Server, self.server).run
        name = path.removeprefix("/page/") if path.startswith("/page/") else "index.html" if path == "/" else None
        if name in PAGE:
            content = resources.files("scoredistill.cli.viewer").joinpath("page", name).read_bytes()
            return HTTPStatus.OK, content, KINDS[Path(name).suffix]
        if path == "/run.json":
            return HTTPStatus.OK, _json(report(run)), KINDS[".json"]
        if path == "/curves.json":
            return HTTPStatus.OK, _json(read_curves(run.path)), KINDS[".json"]
        if path.startswith("/files/") and (file := path.removeprefix("/files/")) in files(run.path):
            return _file(run.path / file)
        made = MADE.fullmatch(path)
        if made:
            return self._made(made[1], int(made[2]), made[3])
        raise _Refused(HTTPStatus.NOT_FOUND, f"there is no {path}")

    def _made(self, key: str, particle: int, kind: str) -> tuple[HTTPStatus, bytes, str]:
        run, workshop = cast(Server, self.server).run, cast(Server, self.server).workshop
        if workshop is None or not 0 <= particle < workshop.particles:
            raise _Refused(HTTPStatus.NOT_FOUND, f"there is no particle {particle}")
        kept = workshop.kept(key, particle, kind)
        if kept is not None:
            return _file(kept)
        checkpoint = last_checkpoint(run)
        if checkpoint is None or checkpoint.key != key:
            raise _Refused(HTTPStatus.NOT_FOUND, "training has written another checkpoint since")
        try:
            path = workshop.request(checkpoint, particle, kind)
        except MakingError as error:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return _file(path) if path else (HTTPStatus.ACCEPTED, _json({"state": "being made"}), KINDS[".json"])

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            status = HTTPStatus.NOT_MODIFIED
            content = b""
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "ETag": tag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _file(path: Path) -> tuple[HTTPStatus, bytes, str]:
    return HTTPStatus.OK, path.read_bytes(), KINDS[path.suffix]


def _json(value: object) -> bytes:
    return json_text(value, indent=None).encode()
