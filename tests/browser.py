"""A page in a headless Chromium, driven over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """The only page of a browser."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._count = socket, 0
        self._hosts: dict[str, str] = {}
        for domain in ("Page", "Network", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        """Keep account of hosts; what the page's own policy forbids is never asked for."""
        about = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent" and about["request"]["url"].startswith("http"):
            self._hosts[about["requestId"]] = about["request"]["url"].split("/")[2]
        if message.get("method") == "Network.loadingFailed" and about.get("blockedReason") == "csp":
            self._hosts.pop(about["requestId"], None)

    @property
    def hosts(self) -> set[str]:
        """Of everything that the page has asked for."""
        return set(self._hosts.values())

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 40) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.ask(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}\n{self.ask('document.body.innerText')}"
            time.sleep(0.3)
        return value

    def write(self, label: str, text: str) -> None:
        """Write into the text field behind a label, as a person who then presses Enter."""
        self.ask(
            f"""(() => {{
                const row = [...document.querySelectorAll(".widget-text")].find(
                    one => one.querySelector("label").innerText.startsWith({json.dumps(label)}));
                row.querySelector("input").focus(); row.querySelector("input").select(); }})()"""
        )
        self.send("Input.insertText", text=text)
        for kind in ("rawKeyDown", "char", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def click(self, words: str) -> None:
        """Click the button with these words."""
        self.ask(
            f"""[...document.querySelectorAll("button")].find(
                one => one.innerText.trim() === {json.dumps(words)}).click()"""
        )

    def photograph(self, path: Path, width: int, height: int) -> None:
        """The whole page as a PNG, in a window of that size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        time.sleep(1)
        shown = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shown["data"]))


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """A page of a browser of its own, which keeps its data in `folder`."""
    from websockets.sync.client import connect

    assert CHROMIUM
    browser = subprocess.Popen(
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        port = folder / "DevToolsActivePort"
        end = time.monotonic() + 30
        while not port.is_file() or not port.read_text().strip():
            assert browser.poll() is None and time.monotonic() < end, "the browser does not start"
            time.sleep(0.1)
        with urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as found:
            address = next(one for one in json.load(found) if one["type"] == "page")["webSocketDebuggerUrl"]
        with connect(address, max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(20)
