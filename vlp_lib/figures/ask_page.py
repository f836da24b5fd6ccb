"""Ask the model: a picture that one makes, a sentence and a question about it, and what trained models say."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from vlp_lib.attention.words import look_at_sentence, unknown_words
from vlp_lib.batches.sample import Pictures
from vlp_lib.batches.whole import square_images
from vlp_lib.corpora.images import as_rgb, read_image
from vlp_lib.corpora.synthetic import CorpusSpec
from vlp_lib.corpora.synthetic.compose import PLACES, SIZES, Wanted, compose, wanted_of
from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.language import captions
from vlp_lib.corpora.synthetic.questions import questions
from vlp_lib.corpora.synthetic.world import BACKGROUNDS, COLOR_NAMES, GROUNDS, SHAPES, STUFFS
from vlp_lib.errors import UserError
from vlp_lib.figures.interactive import by_hand, image_tag, paragraph
from vlp_lib.figures.style import RIGHT, WRONG, colours
from vlp_lib.hub.model import TrainedModel
from vlp_lib.hub.packed import ready_model, ready_models
from vlp_lib.io import readable
from vlp_lib.run import Run, corpus_settings
from vlp_lib.study.runs import label
from vlp_lib.workspace import open_run_corpus

TRUE, OTHER, QUESTION = "a true sentence", "a sentence of another picture", "a question"
"""What the page proposes."""

SCENE, PHOTOGRAPH, OWN = "scene", "photograph", "your own picture"
"""What the picture may be."""

_ASKED = ("what is this?", "what color is it?", "where is it?", "is there a person?", "how many people are there?")
"""Of photographs, whose answers nobody has written down here."""

_PIXELS = "image-rendering:pixelated;border-radius:4px;"


def match_bars(models: Sequence[TrainedModel], image: Image.Image, text: str) -> str:
    """The probability that a sentence belongs to a picture, a bar a model, as HTML."""
    bars = []
    for model in models:
        name, share = model.variant.name, float(model.match([image], [text])[0])
        bars.append(
            f'<div style="display:flex;gap:8px;align-items:center;margin:4px 0">'
            f'<span style="width:7em">{html.escape(label(name))}</span>'
            f'<span style="flex:1;max-width:16em;background:#8883;height:14px"><span style="display:block;height:14px;'
            f'width:{share:.0%};background:{colours([name])[name]}"></span></span>'
            f'<b class="match" data-run="{name}">{share:.0%}</b></div>'
        )
    return "".join(bars)


def answers(model: TrainedModel, image: Image.Image, text: str) -> list[tuple[str, float]]:
    """The three likeliest answers to a question with the model's confidence in each, the likeliest first."""
    found = model.logits([[image]], [[text]])[0].sigmoid().topk(min(3, len(model.answers)))
    return [(model.answers[int(place)], float(share)) for share, place in zip(*found, strict=True)]


def word_maps(models: Sequence[TrainedModel], image: Image.Image, text: str) -> str:
    """Where each word looks, a card a word with a map of each model, one scale for all; as HTML."""
    looks = {}
    for model in models:
        vlp = model.network.vlp
        pictures = Pictures(square_images([as_rgb(image)], vlp.config.image_size))
        grey = pictures.images[0].mean(0).numpy()[..., None]
        looks[label(model.variant.name)] = grey, look_at_sentence(vlp, model.tokenizer, pictures, text)
    # The few brightest cells would leave everything else dark.
    most = float(np.quantile(np.concatenate([m.ravel() for _, maps in looks.values() for m in maps.values()]), 0.99))
    cards = []
    for word in next(iter(looks.values()))[1]:
        shown = []
        for name, (grey, maps) in looks.items():
            if word in maps:
                heat = matplotlib.colormaps["inferno"](np.clip(maps[word] / most, 0, 1))[..., :3]
                drawn = Image.fromarray((255 * (0.35 * grey + 0.65 * heat)).astype(np.uint8))
                shown.append(
                    f'<div style="text-align:center;font-size:80%">'
                    f"{image_tag(drawn, f'where {word!r} looks, {name}', _PIXELS + 'width:76px')}"
                    f"<br>{html.escape(name)}</div>"
                )
        cards.append(
            f'<div style="margin:0 12px 10px 0"><b>{html.escape(word)}</b>'
            f'<div style="display:flex;gap:4px">{"".join(shown)}</div></div>'
        )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(cards)}</div>'


class AskPage:
    """The page: by hand (`panel`), or executed, with what it begins with.

    The models of `baseline` and `run` are one's own where both are finished, else the kit's. It begins with a scene by
    its number (of a run with a `data_root` a test image), or with the file `picture`, and with the sentence and
    question, "" being true ones of the scene.

    Raises UserError where there are no such models, and for a picture that cannot be read.
    """

    def __init__(
        self, baseline: Run, run: Run, scene: int = 0, picture: str = "", sentence: str = "", question: str = ""
    ) -> None:
        import ipywidgets as widgets

        with redirect_stdout(io.StringIO()) as told:
            self.models = ready_models(baseline, run)
            self.vqa, self.no_vqa = None, ""
            try:
                self.vqa = ready_model(run, "finetune-vqa")
            except UserError as error:
                self.no_vqa = str(error)
            self.corpus = open_run_corpus(run) if run.data_root else None
        self.photographs = self.corpus.split("test") if self.corpus else []
        notes = widgets.HTML(f"<small>{html.escape(told.getvalue()).replace(chr(10), '<br>')}</small>")
        size = self.models[0].network.vlp.config.image_size
        self.spec = CorpusSpec(**corpus_settings(run.config) | {"image_size": size})
        self.claims: dict[str, Callable[[], bool]] = {}
        self.truths: dict[str, str] = {}
        self._busy = False
        self._turn = 0

        def choice(options: Sequence[str], width: str = "5.6em") -> Any:
            return widgets.Dropdown(options=options, layout={"width": width})

        most, called = (len(self.photographs) - 1, PHOTOGRAPH) if self.photographs else (999_999, SCENE)
        self.number = widgets.BoundedIntText(scene, min=0, max=most, description=called, layout={"width": "12em"})
        self.ground, self.background = choice(GROUNDS, "7em"), choice(BACKGROUNDS, "7em")
        self.things = [
            {"size": choice(SIZES), "color": choice(COLOR_NAMES), "shape": choice(("nothing", *SHAPES), "6em"),
             "place": choice(PLACES, "8em")}
            for _ in range(3)  # as many as the corpus's scenes may have
        ]  # fmt: skip
        self.upload = widgets.FileUpload(
            accept="image/*", description="a picture of your own", layout={"width": "auto"}
        )
        wide = {"style": {"description_width": "5em"}, "layout": {"width": "98%", "max_width": "44em"}}
        self.sentence = widgets.Text(sentence, description="Sentence", continuous_update=False, **wide)
        self.question = widgets.Text(question, description="Question", continuous_update=False, **wide)
        self.suggest = {
            words: widgets.Button(description=words, layout={"width": "auto"}) for words in (TRUE, OTHER, QUESTION)
        }
        self.view, self.match, self.answer = (widgets.HTML() for _ in range(3))

        for words, button in self.suggest.items():
            button.on_click(lambda _, words=words: self.propose(words))
        self.number.observe(lambda _: self.draw_scene(), "value")
        for part in (self.ground, self.background, *(part for thing in self.things for part in thing.values())):
            part.observe(lambda _: self.draw_scene(changed=True), "value")
        self.upload.observe(lambda _: self.take_upload(), "value")
        for text in (self.sentence, self.question):
            text.observe(lambda _: self.look(), "value")
        row = {"flex_flow": "row wrap", "width": "100%"}
        box = widgets.Box
        ground = box([self.ground, widgets.Label("below"), self.background], layout=row)
        made = [box(list(thing.values()), layout=row) for thing in self.things]
        choices = [] if self.photographs else [ground, *made]
        left = widgets.VBox([self.view, self.number, *choices, self.upload], layout={"max_width": "28em"})
        right = widgets.VBox(
            [box(list(self.suggest.values()), layout=row), self.sentence, self.match, self.question, self.answer],
            layout={"flex": "1 1 22em", "min_width": "20em"},
        )
        self.panel = widgets.VBox([box([left, right], layout=row), notes])
        self.draw_scene()
        for field, kind in ((self.sentence, TRUE), (self.question, QUESTION)):
            if not field.value:
                self.propose(kind)
        if picture:
            with readable(Path(picture)):
                self.take(Path(picture), Path(picture).read_bytes())

    def start(self) -> None:
        """Put the page before whoever is there; where nobody is, what it shows at its beginning."""
        from IPython.display import HTML, display

        if by_hand():
            display(self.panel)
        else:
            said = paragraph(self.sentence.value) + self.match.value
            display(HTML(self.view.value + said + paragraph(self.question.value) + self.answer.value))

    # ------------------------------------------------------------------------------------------------ the picture

    def draw_scene(self, changed: bool = False) -> None:
        """Draw the scene of the number, or what the choices have made of it; or show the photograph of the number."""
        if self._busy:
            return
        if self.photographs and self.corpus:
            self._show(self.corpus.read_image(self.photographs[self.number.value]), PHOTOGRAPH)
            return
        if changed:
            chosen = ({name: part.value for name, part in thing.items()} for thing in self.things)
            wanted = [Wanted(**one) for one in chosen if one["shape"] != "nothing"]
            if not wanted:
                self.match.value = paragraph("a scene has at least one thing: choose a shape", WRONG)
                return
            stuffs = self.ground.value, self.background.value
            self.scene, pixels = compose(self.spec, self.number.value, *stuffs, wanted)
        else:
            self.scene, pixels = compose(self.spec, self.number.value)
            self._show_choices()
        self.truths = {}
        self._show(Image.fromarray(pixels), SCENE)

    def _show(self, image: Image.Image, shown: str) -> None:
        """Put a picture on the page and ask the models anew."""
        self.image, self.shown = image, shown
        self.look()

    def _show_choices(self) -> None:
        """Show what is in the scene."""
        self._busy = True
        self.ground.value, self.background.value = STUFFS[self.scene.ground], STUFFS[self.scene.background]
        for place, choices in enumerate(self.things):
            choices["shape"].value = "nothing"
            if place < len(self.scene.things):
                for name, value in vars(wanted_of(self.scene.things[place], self.scene.image_size)).items():
                    choices[name].value = value
        self._busy = False

    def take_upload(self) -> None:
        """The picture that was uploaded."""
        if self.upload.value:
            file = self.upload.value[-1]
            self.take(Path(file["name"]), bytes(file["content"]))

    def take(self, name: Path, data: bytes) -> None:
        """A picture of one's own instead of the scene; what is none is said."""
        try:
            image = read_image(name, io.BytesIO(data))
        except UserError as error:
            self.view.value = paragraph(error, WRONG)
            return
        image.thumbnail((800, 800))  # for the page carries it
        self._show(image, OWN)

    # ------------------------------------------------------------------------------------------------ the words

    def propose(self, kind: str) -> None:
        """Write a sentence or question of the kind that the models have learned from, each time another one."""
        self._turn += 1
        dice = Dice(self.number.value, self._turn)
        if kind != QUESTION:
            text, holds = self._photographs_words(kind, dice) if self.photographs else self._scenes_words(kind, dice)
            self.claims[text] = holds
            self.sentence.value = text
        elif self.photographs:
            self.question.value = _ASKED[self._turn % len(_ASKED)]
        else:
            asked = questions(self.scene, dice, 1)[0]
            self.truths[asked.text] = asked.answer
            self.question.value = asked.text

    def _scenes_words(self, kind: str, dice: Dice) -> tuple[str, Callable[[], bool]]:
        """A sentence about the scene or another one, and whether it holds of the scene as it is by then."""
        shown = self.scene if kind == TRUE else compose(self.spec, self.number.value + self._turn)[0]
        said = dice.choice(captions(shown, dice))
        return said.text, lambda: said.holds(self.scene)

    def _photographs_words(self, kind: str, dice: Dice) -> tuple[str, Callable[[], bool]]:
        """A caption of the photograph or of another one, and whether it is one of that which is shown by then."""
        others = len(self.photographs) - 1
        place = self.number.value + (1 + self._turn % others if kind == OTHER and others else 0)
        text = dice.choice(self.photographs[place % len(self.photographs)].captions)
        return text, lambda: text in self.photographs[self.number.value].captions

    def look(self) -> None:
        """Ask the models what they say to the picture and the words, as they are now."""
        words = self.shown if self.shown == OWN else f"the {self.shown} that is chosen below"
        style = _PIXELS * (self.shown == SCENE) + "width:288px;max-width:100%"
        self.view.value = image_tag(self.image, words, style)
        self.match.value = self._guarded(self._of_sentence, self.sentence.value)
        self.answer.value = self._guarded(self._of_question, self.question.value)

    def _of_sentence(self, text: str) -> str:
        truth = ""
        if self.shown != OWN and text in self.claims:
            holds = self.claims[text]()
            verb, words = ("is", "true of") if self.shown == SCENE else ("was", "written for")
            truth = paragraph(f"It {verb} {'' if holds else 'not '}{words} this picture.", RIGHT if holds else WRONG)
        bars = match_bars(self.models, self.image, text)
        return f"<p>Does it belong to the picture?</p>{bars}{truth}{word_maps(self.models, self.image, text)}"

    def _of_question(self, text: str) -> str:
        if self.vqa is None:
            return paragraph(self.no_vqa)
        (first, share), *others = answers(self.vqa, self.image, text)
        rest = ", ".join(f"{html.escape(word)} {other:.0%}" for word, other in others if other >= 0.01)
        known = self.shown == SCENE and text in self.truths
        right = paragraph(f"Right is: {self.truths[text]}.", RIGHT) if known else ""
        return (
            f'<p>{html.escape(label(self.vqa.variant.name))} answers: <b class="answer">{html.escape(first)}</b> '
            f"{share:.0%} <small>({rest})</small></p>{right}{word_maps([self.vqa], self.image, text)}"
        )

    def _guarded(self, say: Callable[[str], str], text: str) -> str:
        """What is said to a text, with the words that the models do not know; nothing to an empty one."""
        if not text.strip():
            return ""
        lacking = ", ".join(unknown_words(self.models[0].tokenizer, text))
        note = f"Not in the vocabulary, so read letter by letter: {lacking}."
        try:
            return (paragraph(note, WRONG) if lacking else "") + say(text)
        except UserError as error:
            return paragraph(error, WRONG)
