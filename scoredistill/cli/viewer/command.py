"""scoredistill view RUN: the options, and the server from its start to Ctrl-C."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.cli.options import OptionParser, integer
from scoredistill.cli.viewer.server import Server
from scoredistill.training.run_folder import RunFolder


def view(argv: Sequence[str]) -> None:
    """Serve the page of a run until Ctrl-C, and print its address.

    Args:
        argv: the options.

    Raises:
        UsageError: if there is no such run, or the address is not available.
    """
    options = _parser().parse_args(argv)
    run = find_run(Path(options.run))
    with _listen(options.host, options.port, run) as server:
        sys.stdout.write(f"{run.path} is shown at {server.address} until Ctrl-C\n")
        sys.stdout.flush()
        if options.browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            sys.stdout.flush()
            if server.workshop is not None and server.workshop.busy:
                os._exit(0)  # a mesh may take another minute, and torch aborts if Python ends during its work


def find_run(path: Path) -> RunFolder:
    """The run of a folder, or of a checkpoint in one. It need not have a checkpoint yet.

    Raises:
        UsageError: if there is no run.
    """
    run = RunFolder(path) if path.is_dir() else RunFolder.around(path)
    if run is not None and run.config.is_file():
        return run
    numbers = [int(config.parent.name) for config in path.glob("*/config.yaml") if config.parent.name.isdecimal()]
    hint = f"; the newest run in it is {path / str(max(numbers))}" if numbers else ": config.yaml is missing"
    if not path.exists():
        raise UsageError(f"there is no checkpoint and no run folder {path}")
    raise UsageError(f"{path} is neither a run folder nor a checkpoint in one{hint}")


def _listen(host: str, port: int, run: RunFolder) -> Server:
    try:
        return Server(host, port, run)
    except OSError as error:
        raise UsageError(
            f"--port {port}: cannot listen on {host}: {error.strerror}; --port 0 selects a free port"
        ) from error


def _loopback(text: str) -> str:
    try:
        fits = ipaddress.ip_address(text).is_loopback
    except ValueError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(
            f"expected a loopback address such as 127.0.0.1 or ::1, got {text}; to view from another machine, "
            "forward the port with ssh -L"
        )
    return text


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="scoredistill view",
        description="Show a run in the browser: curves, pictures, settings, and the mesh of every particle. "
        "The page follows a run that is still training.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or a checkpoint in one")
    add("--port", type=integer(0, 65535), default=0, help="port to listen on; 0, the default, selects a free port")
    add("--host", type=_loopback, default="127.0.0.1", help="loopback address to listen on, 127.0.0.1 by default")
    add("--no-browser", dest="browser", action="store_false", help="only print the address")
    return parser
