"""Small pretrainings for test_distributed, which calls `run` in its own process and in each process of a launcher.

Arguments: the corpus, a folder for the runs, and for each run its name, variant and accumulation.
"""

import sys
from dataclasses import replace
from pathlib import Path

from made_runs import pretrain_into

from vlp_lib import cli
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.profiles import profile

STEPS = 4


def run(corpus: Corpus, folder: Path, variant: str, accumulation: int) -> None:
    """Four steps of eight images, whatever the number of processes and parts."""
    smoke = profile("smoke")
    training = replace(
        smoke.training,
        steps=STEPS,
        batch_size=8,
        accumulation=accumulation,
        learning_rate=1e-3,
        evaluations=2,
        validation_images=12,
        checkpoints=2,
        keep=2,
        precision="float32",
    )
    # Half of the images have a label map and few a detection: parts differ in what they have of each.
    pretrain_into(folder, replace(smoke, training=training), variant, corpus)


if __name__ == "__main__":
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for text in sys.argv[3:]:
        name, variant, accumulation = text.split(":")
        run(open_corpus(root), folder / name, variant, int(accumulation))
    command = "pretrain --profile smoke --variant naive_vit --set training.steps=2 --set training.batch_size=4"
    small = "--set training.evaluations=1 --set training.validation_images=4 --set training.precision=float32"
    sys.exit(cli.main([*command.split(), *small.split(), "--data-root", str(root)]))
