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
import os, sys
import vlp_lib.batches.tokenizer, vlp_lib.hub, vlp_lib.models.weights
from vlp_lib.errors import UserError
# What takes seconds is imported once; each call has a process of its own, and all wait at the same time.
for number, call in enumerate(sys.argv[2:]):
    if os.fork() == 0:
        file = os.open(os.path.join(sys.argv[1], str(number)), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            exec(call)
        except UserError as error:
            print("vlp:", error, flush=True)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(0)
for _ in sys.argv[2:]:
    os.wait()
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that begin with what another has imported")
def test_a_name_of_the_hub_is_one_sentence_where_nothing_answers(silent, tmp_path):
    address, taken = silent
    offline = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    told = tmp_path / "told"
    told.mkdir()
    subprocess.run([sys.executable, "-c", PROGRAM, told, *CALLS.values()], env=os.environ | offline, check=True)
    for number, name in enumerate(CALLS):
        lines = [line for line in (told / str(number)).read_text().splitlines() if line.strip()]
        assert 1 <= len(lines) <= 3, (name, lines)
        assert lines[-1].startswith("vlp: ") and "connect to" in lines[-1], (name, lines)
    assert len(taken) == len(CALLS)
