import json
import shutil

import pytest
from PIL import Image

from vlp_lib import __version__, cli
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.io import read_json, read_lines

SMALL = (
    "--profile", "smoke", "--set", "training.precision=float32", "--set", "training.steps=2",
    "--set", "training.batch_size=4", "--set", "training.evaluations=1", "--set", "training.validation_images=4",
)  # fmt: skip
NAIVE = ("pretrain", *SMALL, "--variant", "naive_vit", "--data-root")

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture
def coco(tmp_path):
    """A data set of one's own: four images of train2017 and two of val2017 in COCO's layout, JPEG, captions only."""
    root = tmp_path / "mine"
    (root / "annotations").mkdir(parents=True)
    words = ("dog", "cat", "bus", "tree", "boat", "house")
    for part, ids in (("train2017", (1, 2, 3, 4)), ("val2017", (5, 6))):
        folder = root / "images" / part
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in ids:
            name = f"{number:012d}.jpg"
            Image.effect_noise((48, 32), 60).convert("RGB").save(folder / name)
            images.append({"id": number, "file_name": name, "width": 48, "height": 32})
            annotations.append({"image_id": number, "id": number, "caption": f"a {words[number - 1]} in the picture"})
        (root / f"annotations/captions_{part}.json").write_text(
            json.dumps({"images": images, "annotations": annotations})
        )
    return root


# What works


def test_pretraining_on_a_data_set_of_ones_own(coco, results, capsys, refused):
    command = ["pretrain", "--variant", "naive_vit", "--seed", "3", "--data-root", str(coco), *SMALL]
    assert cli.main(command) == 0
    folder = results / "smoke-mine" / "pretrain" / "naive_vit" / "seed3"
    facts = read_json(folder / "run.json")
    assert (facts["synthetic"], facts["seed"], facts["variant"]) == (False, 3, "naive_vit")
    assert [row["step"] for row in read_lines(folder / "metrics.jsonl")] == [0, 2]
    assert not (results / "smoke").exists()  # no corpus was drawn
    out = capsys.readouterr().out
    assert "captions" in out
    assert "step 2/2" in out
    # The same command again has nothing to do; another setting is refused.
    assert cli.main(command) == 0
    assert "training.learning_rate = 0.001 and now it is 0.5" in refused(
        *command, "--set", "training.learning_rate=0.5"
    )


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"vlp {__version__}"


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlp_lib.workspace.open_run_corpus", interrupt)
    assert cli.main(["pretrain", "--variant", "segl"]) == 130
    assert capsys.readouterr().err == "vlp: interrupted; the same command goes on where it stopped\n"


def test_labels_want_a_place(refused, tmp_path):
    assert refused("data", "labels").startswith("vlp: nothing says where the labels belong: give --root, or")
    said = refused("data", "labels", "--tsv", tmp_path / "a.tsv", "--out", tmp_path / "a.npz")
    assert said == f"vlp: {tmp_path / 'a.tsv'} is missing: fetch it again"


# What a user may do wrong


def test_seeds_that_are_no_numbers(refused):
    said = refused("reproduce", "--profile", "smoke", "--seeds", "0 one")
    assert said == "vlp: --seeds '0 one' are no whole numbers: write e.g. --seeds '0 1 2'"


def test_a_part_of_val2017_alone_is_divided_and_its_missing_images_are_counted(capsys, tmp_path):
    """Nine images of the forty that the captions list; what is written down is what is used afterwards."""
    root = tmp_path / "photos"
    folder = root / "val2017"
    folder.mkdir(parents=True)
    for number in range(30, 39):
        Image.new("RGB", (8, 8)).save(folder / f"{number:012d}.jpg")
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 8, "height": 8} for i in range(1, 41)]
    said = [{"image_id": i, "id": i, "caption": f"number {i}"} for i in range(1, 41)]
    (root / "annotations").mkdir()
    content = json.dumps({"images": images, "annotations": said})
    (root / "annotations/captions_val2017.json").write_text(content)
    before = open_corpus(root)
    assert before.report.skipped == {"listed images without a file": 31}
    assert "divided by image (seed 0)" in str(before.report)
    assert cli.main(["data", "split", "--root", str(root), "--seed", "5"]) == 0
    assert str(root / "splits/by_image.json") in capsys.readouterr().out
    written, after = json.loads((root / "splits/by_image.json").read_text()), open_corpus(root)
    parts = {name: [record.image_id for record in after.split(name)] for name in ("train", "val", "test")}
    assert written == {"seed": 5, **parts}
    assert sorted(i for ids in parts.values() for i in ids) == list(range(30, 39))
    assert after.fingerprint != before.fingerprint


def test_what_is_divided_already_is_not_divided_again(refused, coco):
    said = refused("data", "split", "--root", coco)
    assert "is divided already (4 train, 2 val, 0 test)" in said
    assert not (coco / "splits").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_jpeg_during_pretraining(refused, coco, results, workers):
    broken = coco / "images/train2017/000000000003.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    said = refused(*NAIVE, coco, "--set", f"data.workers={workers}")
    assert said.startswith(f"vlp: 1 of the 4 training images cannot be read, the first is {broken}")
    assert "data.allow_corrupt" in said
    assert not list(results.rglob("run.json"))


@pytest.mark.parametrize(
    ("variant", "missing"), [("segl", "label maps"), ("spl_small", "detector labels"), ("region", "detector labels")]
)
def test_targets_that_the_data_set_lacks(refused, coco, variant, missing):
    said = refused("pretrain", *SMALL, "--variant", variant, "--data-root", coco)
    assert said.startswith(f"vlp: variant '{variant}' reads {missing} and {coco} has none")
    assert ("vlp data labels --root" in said) == (missing == "detector labels")


def test_a_tokenizer_that_is_not_there(refused, coco, tmp_path):
    (tmp_path / "bert").mkdir()
    setting = f"model.tokenizer={tmp_path / 'bert'}"
    said = refused(*NAIVE, coco, "--set", setting)
    lacks = "has neither tokenizer.json nor vocab.txt: give a folder with a BERT tokenizer"
    assert said == f"vlp: {tmp_path / 'bert'} {lacks}"


def test_a_batch_that_cannot_be_divided(refused, coco):
    said = refused(*NAIVE, coco, "--set", "training.accumulation=3")
    assert said == "vlp: training.batch_size must be a multiple of training.accumulation: change one of the two"


def test_an_index_of_nothing(refused, tmp_path):
    said = refused("index", tmp_path / "absent")
    assert str(tmp_path / "absent") in said
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["pretrian"], ["pretrain"], ["pretrain", "--variant", "segl", "--seed", "x"]]
)
def test_usage(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: vlp" in capsys.readouterr().err


def test_the_graph_runs_the_tasks_that_the_data_has(capsys, refused, tmp_path, tiny_corpus, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vlp_lib.cli.graph.run_graph", lambda *args, **kwargs: asked.append((args[4], kwargs["of_ours"]))
    )
    assert cli.main(["reproduce", "--profile", "smoke"]) == 0
    assert cli.main(["reproduce", "--profile", "smoke", "--tasks", "vcr retrieval"]) == 0
    assert cli.main(["reproduce", "--profile", "smoke", "--tasks", ""]) == 0
    everything = ["vqa", "nlvr2", "vcr", "retrieval"]
    assert asked == [(everything, ("nlvr2", "vcr")), (["vcr", "retrieval"], ()), ([], ())]

    root = tmp_path / "coco"
    shutil.copytree(tiny_corpus.root, root, ignore=shutil.ignore_patterns("nlvr2", "vcr"))
    capsys.readouterr()
    assert cli.main(["reproduce", "--profile", "smoke", "--data-root", str(root)]) == 0
    assert asked[-1][0] == ["vqa", "retrieval"]
    assert f"{root} has no data for nlvr2, vcr: left out of the graph" in capsys.readouterr().out
    assert "did you mean 'vqa'" in refused("reproduce", "--profile", "smoke", "--tasks", "vqav2")
