"""The ablation bench: what is to be tried, how long it will take, the trainings with live curves, and the table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.bench.step import seconds_of
from vlp_lib.errors import UserError
from vlp_lib.figures.interactive import by_hand, image_tag, paragraph
from vlp_lib.figures.plots import draw_courses
from vlp_lib.figures.style import WRONG
from vlp_lib.profiles import profile as profile_of
from vlp_lib.run import Layout, Run, reference_root
from vlp_lib.study import ablation
from vlp_lib.study.ablation import FACTORS, courses, finished
from vlp_lib.study.convergence import speed_table
from vlp_lib.study.runs import read_runs
from vlp_lib.study_file import write_study
from vlp_lib.trainers.loop import METRICS
from vlp_lib.trainers.pretrain import pretrain
from vlp_lib.workspace import open_run_corpus

_LOOK = 1.0
"""Seconds between looks for a new evaluation."""

_TEXTS = {
    "variants": "losses, e.g. naive segl segl+0.5*ssul",
    "backbones": "backbones: vit, resnet",
    **{name: factor.words for name, factor in FACTORS.items()},
    "seeds": "seeds",
}
"""What is chosen, each a text of values with spaces between."""


class AblationBench:
    """A study of the choices, for a notebook: executed (`train`), or by hand (`panel`).

    `choices` are, by `variants`, `backbones`, `seeds` and the names of `ablation.FACTORS`, values with spaces between;
    "" takes the profile's own. `threshold` is of the matching loss, `study` the name of the file that `save` writes.
    """

    def __init__(
        self, profile: str, choices: Mapping[str, str], threshold: float, study: str = "study", plugin: str = ""
    ) -> None:
        import ipywidgets as widgets

        self.profile, self.study, self.plugin = profile, study, plugin
        self.runs: list[Run] = []
        self._measured: dict[str, float] = {}
        self._reference = read_runs(reference_root(), "pretrain")
        wide = {"style": {"description_width": "22em"}, "layout": {"width": "44em", "max_width": "100%"}}
        self.texts = {
            name: widgets.Text(
                choices[name] or (f"{ablation.usual(profile, name):g}" if name in FACTORS else ""),
                description=words, continuous_update=False, **wide,
            )
            for name, words in _TEXTS.items()
        }  # fmt: skip
        self.threshold = widgets.FloatSlider(
            threshold, min=0.05, max=0.65, step=0.05, description="threshold of the matching loss", **wide
        )
        self.button = widgets.Button(description="Train", button_style="primary", icon="play")
        self.save_button = widgets.Button(description="Save the study", icon="save")
        self.plan, self.status, self.curves, self.table = (widgets.HTML() for _ in range(4))
        self.log = widgets.Output()
        for text in self.texts.values():
            text.observe(lambda _: self._guarded(self.choose), "value")
        self.threshold.observe(lambda _: self.show(), "value")
        self.button.on_click(lambda _: self._guarded(self.train))
        self.save_button.on_click(lambda _: self._guarded(self.save))
        buttons = widgets.HBox([self.button, self.save_button])
        folded = widgets.Accordion([self.log], titles=["What the trainings print"])
        self.panel = widgets.VBox(
            [*self.texts.values(), self.threshold, self.plan, buttons, self.status, self.curves, self.table, folded]
        )

    def start(self) -> None:
        """Put the panel before whoever is there, and say how long the study takes; where nobody is, run it."""
        from IPython.display import display

        if by_hand():
            display(self.panel)
            self._guarded(self.choose)
        else:
            self.choose()
            print(self.forecast(self.runs)[0])
            self.train()

    def choose(self) -> None:
        """Take over what is written, and say what is to be run and how long that takes; nothing is started.

        Raises UserError for what cannot be run.
        """
        self.runs, self.button.disabled = [], True
        written = {name: text.value for name, text in self.texts.items()}
        values = {name: ablation.numbers(written[name], factor.words, float) for name, factor in FACTORS.items()}
        seeds = ablation.numbers(written["seeds"], "seeds", int)
        mixes, backbones = written["variants"].split(), written["backbones"].split()
        runs = ablation.grid(self.profile, mixes, backbones, values, seeds, self.plugin)
        self.plan.value = paragraph("measuring how long a step takes …")
        words, table = self.forecast(runs)
        self.plan.value = paragraph(words) + table.to_html(index=False)
        self.runs, self.button.disabled = runs, False
        self.show()

    def forecast(self, runs: Sequence[Run]) -> tuple[str, pd.DataFrame]:
        """What is still to be run and how long that takes, and a row a run."""
        left = {run: 0.0 if finished(run) else self._seconds(run) for run in runs}
        rows = [(run.name, run.seed, f"{took / 60:.1f} min" if took else "done") for run, took in left.items()]
        time = f"about {sum(left.values()) / 60:.1f} minutes, by a few steps that were measured on this machine"
        words = f"{len(runs)} runs, {sum(not took for took in left.values())} of them done; still to train: "
        return words + (time if any(left.values()) else "nothing"), pd.DataFrame(rows, columns=["run", "seed", "time"])

    def _seconds(self, run: Run) -> float:
        """How long a run takes; measured once for each variant."""
        if run.variant not in self._measured:
            plain = Run(run.profile, run.variant, plugin=run.plugin)
            with self._live():
                self._measured[run.variant] = seconds_of(plain, open_run_corpus(plain))
        return self._measured[run.variant]

    def train(self) -> None:
        """Run what is not done yet, one after the other; what is done is kept, and what was interrupted goes on."""
        self.choose()
        self.button.disabled = True
        try:
            for place, run in enumerate(self.runs, 1):
                self.status.value = paragraph(f"run {place} of {len(self.runs)}: {run.name}, seed {run.seed} …")
                if not finished(run):
                    with self._live(run.folder("pretrain") / METRICS):
                        pretrain(run, open_run_corpus(run))
            self.status.value = paragraph("all runs are done")
        finally:
            self.choose()

    def draw(self) -> Figure:
        """The curves as far as they have come, over those that come with the kit."""
        training = profile_of(self.profile).training
        shown = {"naive_vit", "segl", *(run.chosen.name for run in self.runs)}
        reference = self._reference[self._reference["name"].isin(shown)]
        end = training.steps * training.batch_size or float(reference["samples"].max())
        return draw_courses(courses(self.runs), reference, end, self.threshold.value)

    def compare(self) -> pd.DataFrame:
        """Final losses and images until the threshold of the finished runs, with 95 % intervals over seeds."""
        done = courses([run for run in self.runs if finished(run)])
        return speed_table(done, self.threshold.value) if len(done) else done

    def show(self) -> None:
        """Curves and table, as they are now."""
        self.curves.value = image_tag(self.draw(), "Validation losses against images seen, a line a run")
        self.table.value = self.compare().to_html(index=False) if any(map(finished, self.runs)) else ""

    def save(self) -> Path:
        """Write the study as a file of `vlp reproduce --runs`, which gives it more seeds; returns its path."""
        self.choose()
        path = Layout(self.profile).root / "studies" / f"{self.study}.toml"
        command = f'vlp reproduce --profile {self.profile} --runs {path} --seeds "0 1 2" --until convergence'
        about = f"More seeds of the same runs; those that are done are not run again:\n\n    {command}"
        write_study(path, self.runs, about)
        self.status.value = paragraph(f"saved. Three seeds of it: {command}")
        return path

    def _guarded(self, act: Callable[[], object]) -> None:
        """What a person asks for: what is wrong with it is a sentence on the panel."""
        try:
            act()
        except UserError as error:
            self.plan.value = paragraph(error, WRONG)
        except KeyboardInterrupt:
            self.status.value = paragraph("stopped; Train goes on from the state that was saved last", WRONG)

    @contextmanager
    def _live(self, file: Path | None = None) -> Iterator[None]:
        """By hand, prints go to their fold and the curves are drawn again whenever a run's metrics have changed."""
        if not by_hand():
            yield
            return
        over, raised = threading.Event(), None

        def look() -> None:
            seen = 0
            while file and not over.wait(_LOOK):
                if file.is_file() and file.stat().st_mtime_ns != seen:
                    seen = file.stat().st_mtime_ns
                    self.show()

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        with self.log:  # which would keep to itself what is raised
            try:
                yield
            except BaseException as error:
                raised = error
        over.set()
        watcher.join()
        if raised is not None:
            raise raised
