"""Names of the hub where nothing answers: asked once, one sentence, little noise."""

import os
import socket
import subprocess
import sys
import threading

import pytest

CALLS = {
    "a timm name": "from vlp_lib.models.weights import timm_state_dict as ask; ask('vit_base_patch32_384')",
    "a timm model of the hub": "from vlp_lib.models.weights import timm_state_dict as ask; ask('hf-hub:timm/resnet50')",
    "its input scale": "from vlp_lib.models.weights import input_scale; from vlp_lib.config import ViTConfig; "
    "input_scale(ViTConfig(pretrained='hf-hub:timm/resnet50.a1_in1k'), 'vit')",
    "BERT's weights": "from vlp_lib.models.weights import bert_state_dict as ask; ask('bert-base-uncased')",
    "a tokenizer": "from vlp_lib.batches.tokenizer import load_tokenizer; load_tokenizer('bert-base-uncased', 40)",
    "a trained model": "from vlp_lib.hub import from_pretrained; from_pretrained('someone/vlp-segl')",
}
PROGRAM = """
import sys
from vlp_lib.errors import UserError
try:
    {call}
except UserError as error:
    print("vlp:", error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture
def silent():
    """The address of a hub that takes calls and never answers, and how many it has taken."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take():
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_name_of_the_hub_is_one_sentence_where_nothing_answers(call, silent, tmp_path):
    address, taken = silent
    offline = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)], env=os.environ | offline, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) <= 3, lines
    assert lines[-1].startswith("vlp: ")
    assert "connect to" in lines[-1]
    assert len(taken) == 1
