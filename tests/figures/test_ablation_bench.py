"""The bench's widgets without a browser: what they say, start and write."""

import pandas as pd
import pytest

from vlp_lib.bench import step
from vlp_lib.figures import ablation_bench, interactive
from vlp_lib.figures.ablation_bench import AblationBench
from vlp_lib.run import Run
from vlp_lib.study_file import read_study

pytest.importorskip("ipywidgets")

CHOICES = dict.fromkeys(("backbones", "maps", "noise", "typical", "mlm", "hidden"), "")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The runs that were trained: quickly, with made-up losses."""
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path))
    monkeypatch.setattr(ablation_bench, "seconds_of", lambda run, corpus: 90.0)
    monkeypatch.setattr(ablation_bench, "open_run_corpus", lambda run: None)
    done = {}

    def pretrain(run, corpus):
        done[run] = pd.DataFrame(
            {"samples": [0, 192], "val_itm": [0.7, 0.3], "val_itm_accuracy": [0.5, 0.9], "val_mlm": [5.0, 2.0]}
        ).assign(name=run.name, variant=run.chosen.name, seed=run.seed)

    monkeypatch.setattr(ablation_bench, "pretrain", pretrain)
    monkeypatch.setattr(ablation_bench, "finished", done.__contains__)

    def courses(runs):
        return pd.concat([done[run] for run in runs if run in done] or [pd.DataFrame()], ignore_index=True)

    monkeypatch.setattr(ablation_bench, "courses", courses)
    return done


@pytest.fixture
def bench(trained):
    return AblationBench("smoke", CHOICES | {"variants": "naive segl", "seeds": "0 1"}, 0.5, "mine")


def test_executed_it_trains_at_once_and_says_how_long_that_takes(bench, trained, capsys):
    bench.start()
    assert "4 runs, 0 of them done; still to train: about 6.0 minutes" in capsys.readouterr().out
    assert [(run.name, run.seed) for run in trained] == [("naive_vit", 0), ("segl", 0), ("naive_vit", 1), ("segl", 1)]
    assert bench.compare()["seeds"].tolist() == [2, 2]
    assert len(bench.draw().axes) == 3


def test_a_change_says_what_is_to_be_run_and_starts_nothing(bench, trained):
    bench.choose()
    bench.texts["mlm"].value = "0.15 0.5"
    assert "8 runs, 0 of them done" in bench.plan.value and "segl-mlm0.5" in bench.plan.value
    assert not trained and not bench.button.disabled
    assert "data:image/png" in bench.curves.value and bench.table.value == ""


def test_what_is_wrong_is_said_and_cannot_be_trained(bench, trained):
    bench.texts["variants"].value = "sgel"
    assert "did you mean &#x27;segl&#x27;" in bench.plan.value and bench.button.disabled
    bench.texts["variants"].value = "segl"
    assert "2 runs" in bench.plan.value and not bench.button.disabled


def test_the_button_trains_what_is_not_done_yet(bench, trained):
    bench.texts["seeds"].value = "0"
    bench.button.click()
    assert len(trained) == 2 and bench.status.value == interactive.paragraph("all runs are done")
    assert "Naive (ViT)" in bench.table.value and "nothing" in bench.plan.value
    before = dict(trained)
    bench.texts["seeds"].value = "0 5"
    bench.button.click()
    assert len(trained) == 4 and all(trained[run] is rows for run, rows in before.items())


def test_a_training_that_is_interrupted_says_so(bench, trained, monkeypatch):
    def interrupted(run, corpus):
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation_bench, "pretrain", interrupted)
    bench.button.click()
    assert "stopped" in bench.status.value and not bench.button.disabled


def test_the_saved_study_is_what_the_graph_takes(bench, trained, tmp_path):
    bench.texts["hidden"].value = "0.5"
    bench.texts["variants"].value = "naive ssul"
    bench.save_button.click()
    path = tmp_path / "smoke" / "studies" / "mine.toml"
    assert str(path) in bench.status.value
    assert [run.name for run in read_study(path, "smoke", "", [7])] == ["naive_vit", "ssul-hidden0.5"]


def test_curves_are_drawn_again_while_a_run_goes_on(bench, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "07_ablation_bench.ipynb")
    monkeypatch.setattr(ablation_bench, "_LOOK", 0.01)
    shown = []
    monkeypatch.setattr(bench, "show", lambda: shown.append(1))
    file = tmp_path / "metrics.jsonl"
    with pytest.raises(RuntimeError, match="what is raised comes out"), bench._live(file):
        file.write_text("{}\n")
        while not shown:
            pass
        raise RuntimeError("what is raised comes out")
    assert len(shown) == 1


def test_the_seconds_of_a_run_are_those_of_its_steps_and_validations(small_profile, tiny_corpus, monkeypatch):
    monkeypatch.setattr(step, "timed", lambda function, device: lambda: (function(), (2.0,))[1])
    run = Run("smoke", "segl")
    training = run.config.training
    assert step.seconds_of(run, tiny_corpus) == 2.0 * (training.steps + training.evaluations + 1)
