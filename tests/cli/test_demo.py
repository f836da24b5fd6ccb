"""`vlp demo`: refused in one sentence, and driven in a browser where there is one."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from browser import CHROMIUM, opened

DEMO = ("demo", "--no-browser")


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def test_without_voila_it_says_what_to_install(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    assert "pip install -e '.[notebooks]'" in refused(*DEMO)


def test_a_port_that_is_taken_and_a_misspelt_parameter_are_one_sentence(refused):
    pytest.importorskip("voila")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "choose another with --port" in refused(*DEMO, "--port", str(taken.getsockname()[1]))
    assert "cannot be had" in refused(*DEMO, "--port", "99999")
    assert "did you mean 'scene'" in refused(*DEMO, "-p", "scen=1")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_answers_to_a_sentence_shows_no_code_and_asks_nobody_else(tmp_path):
    pytest.importorskip("voila")
    pytest.importorskip("websockets")
    port = free_port()
    command = [sys.executable, "-m", "vlp_lib.cli", "demo", "--no-browser", "--port", str(port), "-p", "scene=1"]
    demo = subprocess.Popen(
        command,
        env={**os.environ, "VLP_RESULTS": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, SIGINT is ignored, and a child would go on ignoring it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert f"http://127.0.0.1:{port}" in demo.stdout.readline()
        with opened(tmp_path / "browser") as page:
            end = time.monotonic() + 120
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert time.monotonic() < end and demo.poll() is None
                time.sleep(0.2)
            page.open(f"http://127.0.0.1:{port}")
            page.wait("document.querySelectorAll('.match').length === 2", seconds=240)
            shares = "[...document.querySelectorAll('.match')].map(one => one.innerText).join()"
            before = page.ask(shares)
            page.write("Sentence", "a dog on the snow")
            page.wait("document.body.innerText.includes('letter by letter: dog')", seconds=60)
            assert page.ask(shares) != before
            page.click("a true sentence")
            page.wait("document.body.innerText.includes('It is true of this picture.')", seconds=60)
            assert not page.ask("document.body.innerText.includes('AskPage')"), "code is hidden"
            assert page.hosts == {f"127.0.0.1:{port}"}
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    finally:
        if demo.poll() is None:
            demo.kill()
