"""`vlp demo`: the notebook 08_ask_the_model as a page that this machine shows to itself."""

from __future__ import annotations

import argparse
import os
import socket

from vlp_lib.cli.notebook import parameters, quiet_ipython
from vlp_lib.cli.options import Commands, declare
from vlp_lib.errors import UserError
from vlp_lib.run import project_root, results_root

_ONLY_HERE = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws://{0}; frame-ancestors 'self'"
)
"""The browser's orders: Voilà's templates name icons on servers elsewhere, which nothing here needs."""


def add(commands: Commands) -> None:
    """Declare the command."""
    demo = declare(commands, "demo", _demo, "ask a trained model, on a web page of this machine's own")
    demo.add_argument("--port", type=int, default=8866, help="port of 127.0.0.1 (default: %(default)s)")
    demo.add_argument("--no-browser", action="store_true", help="only say where the page is")
    demo.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the notebook")


def _demo(options: argparse.Namespace) -> None:
    """Serve the notebook with these parameters until it is interrupted."""
    source = project_root() / "notebooks" / "08_ask_the_model.ipynb"
    values = parameters(source, options.parameter)
    try:
        from papermill.iorw import load_notebook_node, write_ipynb
        from papermill.parameterize import parameterize_notebook
        from traitlets.config import Config
        from voila.app import Voila
    except ModuleNotFoundError as error:
        raise UserError(
            f"the page needs the package {error.name}, which is not installed: pip install -e '.[notebooks]'"
        ) from error
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", options.port))
        except (OSError, OverflowError) as error:
            raise UserError(f"port {options.port} cannot be had ({error}): choose another with --port") from error
    page = results_root() / "demo" / "ask_the_model.ipynb"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_ipynb(parameterize_notebook(load_notebook_node(str(source)), values), str(page))
    os.environ.setdefault("IPYTHONDIR", str(quiet_ipython()))
    headers = {"Content-Security-Policy": _ONLY_HERE.format(f"127.0.0.1:{options.port}")}
    settings = {"ip": "127.0.0.1", "port": options.port, "port_retries": 0, "open_browser": not options.no_browser}
    print(f"http://127.0.0.1:{options.port} – Ctrl-C ends it", flush=True)
    Voila.launch_instance(
        [str(page), *(f"--Voila.{name}={value}" for name, value in settings.items()), "--Voila.log_level=ERROR"],
        config=Config(Voila={"tornado_settings": {"headers": headers}}),
    )
