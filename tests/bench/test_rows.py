"""The table of `vlp bench`: what is compared and written; never how fast it was."""

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.utils.flop_counter import FlopCounterMode

from vlp_lib import cli
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.bench import rows, table
from vlp_lib.bench.contenders import contenders
from vlp_lib.bench.made_up import SIZES, training_batch
from vlp_lib.bench.plain import PlainModel, detr_matching, plain_loader, plain_step
from vlp_lib.bench.rows import ROWS, Products, chosen_rows
from vlp_lib.config import DataConfig
from vlp_lib.errors import UserError
from vlp_lib.io import read_text
from vlp_lib.losses.spl import match_labels
from vlp_lib.profiles import profile
from vlp_lib.variants import VARIANTS

CPU = torch.device("cpu")


@pytest.fixture
def setting(small_profile, tiny_corpus, tmp_path):
    training = replace(small_profile.training, batch_size=2)
    return table.Setting(replace(small_profile, training=training), tiny_corpus, CPU, tmp_path)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.slow and not row.above])
def test_both_sides_of_a_row_can_be_measured(setting, name):
    pair = ROWS[name].measure(setting)
    pair.ours()
    pair.ours()
    if callable(pair.theirs):
        pair.theirs()
    else:
        assert pair.theirs > 0
    facts = pair.facts()
    if name == "matrix_share":
        assert facts["tflops"] == pytest.approx(
            facts["gflop_per_sample"] * facts["samples_per_second"] / 1000, rel=0.1, abs=1e-3
        )
        assert facts["forward_ms"] > 0


def test_answers_are_compared_at_the_profiles_scale(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "contenders", lambda scale, _, device: contenders(scale, 64, device))
    pair = ROWS["answer_regions"].measure(table.Setting(profile("smoke"), tiny_corpus, CPU, tmp_path))
    assert len(pair.ours()) == 3  # vision, language, both
    assert len(pair.theirs()) == 5  # after a detector and its selection


@pytest.mark.parametrize("name", ["start_help", "start_misspelt"])
def test_what_starts_answers(setting, name):
    ours = ROWS[name].measure(setting).ours()
    assert (b"usage: vlp" in ours.stdout) or (b"did you mean 'segl'?" in ours.stderr)


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.name in ("start_import", "start_notebook")])
def test_what_is_imported_can_be(setting, row, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: started.append(command[1:]))
    pair = row.measure(setting)
    pair.ours()
    pair.theirs()
    (_, ours), (_, theirs) = started
    exec(ours, {})
    exec(theirs, {})


@pytest.fixture
def own_clock(monkeypatch):
    """Functions say themselves how long they took."""
    for name in ("processor_timed", "timed"):
        monkeypatch.setattr(table, name, lambda function, *_: lambda: (function(),))


def measured(setting, pair, **changes):
    row = table.Row("one", "ours", "theirs", **{"aim": 4.0, "measure": lambda _: pair, **changes})
    return table.measure(row, setting, 3, 10.0)


def test_a_ratio_is_theirs_over_ours(setting, own_clock):
    found = measured(setting, table.Pair(lambda: 2.0, lambda: 9.0, facts=lambda: {"more": 1}))
    assert (found["ratio"], found["ours_ms"], found["against_ms"], found["met"]) == (4.5, 2000, 9000, True)
    assert (found["p5"], found["p95"], found["more"]) == (4.5, 4.5, 1)
    # Theirs does a quarter of the work: ours takes 0.5 s for that.
    assert measured(setting, table.Pair(lambda: 2.0, lambda: 1.0, share=0.25))["ratio"] == 2.0
    short = measured(setting, table.Pair(lambda: 2.0, 7.0))
    assert (short["ratio"], short["met"]) == (3.5, False)


def test_a_start_is_so_many_seconds_above(setting, own_clock):
    found = measured(setting, table.Pair(lambda: 0.75, lambda: 0.5), above=True, aim=0.3)
    assert (found["ratio"], found["kind"], found["met"]) == (0.25, "seconds above", True)
    assert not measured(setting, table.Pair(lambda: 1.0, lambda: 0.5), above=True, aim=0.3)["met"]


def test_rows_are_chosen_by_name():
    quick = chosen_rows([])
    assert [row.name for row in chosen_rows(["mlm_head", "answer_vilt"])] == ["mlm_head", "answer_vilt"]
    assert not any(row.slow for row in quick)
    assert len(quick) < len(ROWS)
    with pytest.raises(UserError, match="unknown row 'mlm_haed': did you mean 'mlm_head'"):
        chosen_rows(["mlm_haed"])


def test_the_command_writes_table_and_figure(results, capsys):
    threads = torch.get_num_threads()
    assert cli.main(["bench", "--profile", "smoke", "--only", "input_files", "spl_matching", "--runs", "3"]) == 0
    assert torch.get_num_threads() == threads
    folder, name = results / "smoke" / "bench", "input_files-spl_matching"
    written = json.loads((folder / f"{name}.json").read_text())
    assert [row["row"] for row in written["rows"]] == ["input_files", "spl_matching"]
    for row in written["rows"]:
        assert 0 < row["p5"] <= row["ratio"] <= row["p95"]
        assert row["met"] == (row["ratio"] >= row["aim"])
    lines = [line for line in read_text(folder / f"{name}.md").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    assert (folder / f"{name}.png").is_file()
    assert (folder / f"{name}.csv").is_file()
    assert "input_files" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "text"), [(["--runs", "0"], "runs is 0"), (["--device", "cuda"], "no GPU here")])
def test_what_cannot_be_measured_is_refused(results, capsys, words, text):
    assert cli.main(["bench", "--profile", "smoke", *words]) == 2
    assert text in capsys.readouterr().err


# What is compared with


def test_detrs_matching_costs_as_little_as_ours():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 12)
    labels = torch.tensor([[0, 3, 3, -1], [5, -1, -1, -1], [1, 2, 7, 10]])
    best = []
    for scores, wanted in zip(logits.softmax(-1), labels, strict=True):
        cost = -scores[:, wanted[wanted >= 0]].numpy()
        best.append(cost[linear_sum_assignment(cost)].sum())
    for matching in (detr_matching, match_labels):
        targets = matching(logits, labels)
        for i, wanted in enumerate(labels):
            given = targets[i] < 11
            assert sorted(targets[i][given].tolist()) == sorted(wanted[wanted >= 0].tolist())
            spent = -logits[i].softmax(-1)[given].gather(1, targets[i][given, None]).sum()
            assert spent.item() == pytest.approx(best[i], abs=1e-6)


def test_the_plain_model_learns(small_profile):
    torch.manual_seed(0)
    model = PlainModel(small_profile.model, SIZES)
    batch = training_batch(small_profile, VARIANTS["segl"], SIZES, 2, CPU)
    before = model(batch).item()
    assert before == pytest.approx(math.log(SIZES.words) + math.log(2) + math.log(SIZES.segmentation + 1), rel=0.3)
    step = plain_step(model, batch, small_profile.training)
    for _ in range(5):
        step()
    assert model(batch).item() < before


def test_all_matrix_products_are_kept():
    a, b = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    layer = torch.nn.Linear(5, 6)
    with FlopCounterMode(display=False) as counter, Products() as products:
        layer(a @ b).sum().backward()
    operations = sum(2 * math.prod(first) * second[-1] for first, second in products.shapes)
    assert operations == counter.get_total_flops() > 0
    products.again(CPU, torch.bfloat16)()


def test_the_plain_loader_gives_images_and_two_sentences_for_each(tiny_corpus):
    tokenizer = train_tokenizer(training_texts(tiny_corpus), 32)
    images, texts = plain_loader(tiny_corpus.records[:3], tokenizer, 24, DataConfig(mlm_probability=0.5))()
    read = torch.where(texts["labels"] >= 0, texts["labels"], texts["input_ids"])
    captions = [record.captions[0] for record in tiny_corpus.records[:3]]
    for row, caption in zip(read, [*captions, captions[1], captions[2], captions[0]], strict=True):
        assert row[row != 0].tolist() == tokenizer.encode(caption)[0].tolist()
    assert (texts["labels"] >= 0).any()
    assert images.shape == (3, 3, 24, 24)
    assert 0 <= images.min() < images.max() <= 1
