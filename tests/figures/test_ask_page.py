"""The page's widgets without a browser, with the models that come with the kit."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from vlp_lib.errors import UserError
from vlp_lib.figures.ask_page import OTHER, QUESTION, TRUE, AskPage, answers
from vlp_lib.run import Run

pytest.importorskip("ipywidgets")


RUNS = Run("tiny", "naive_vit"), Run("tiny", "segl")


@pytest.fixture(scope="module")
def page(shared_results):
    return AskPage(*RUNS)


def shares(page):
    return {name: int(share) for name, share in re.findall(r'data-run="(\w+)">(\d+)%', page.match.value)}


def test_it_begins_with_a_true_sentence_and_a_question_and_says_whose_models_these_are(page):
    assert page.claims[page.sentence.value]()
    assert "It is true of this picture." in page.match.value
    assert set(shares(page)) == {"naive_vit", "segl"}
    assert page.truths[page.question.value] in page.vqa.answers and "Right is: " in page.answer.value
    assert "come with the kit" in page.panel.children[-1].value


def test_the_probability_is_the_models_own_and_follows_the_sentence(page):
    for kind in (TRUE, OTHER):
        page.suggest[kind].click()
        expected = {
            m.variant.name: round(100 * float(m.match([page.image], [page.sentence.value])[0])) for m in page.models
        }
        assert shares(page) == expected
    truth = "true" if page.claims[page.sentence.value]() else "not true"
    assert f"It is {truth} of this picture." in page.match.value


def test_a_changed_picture_is_asked_anew(page):
    page.number.value = 3
    page.sentence.value = f"there is a {page.things[0]['color'].value} {page.things[0]['shape'].value}"
    before, shown = shares(page), page.view.value
    for thing in page.things:
        thing["color"].value = "white"
    assert page.view.value != shown and shares(page) != before
    for thing in page.things:
        thing["shape"].value = "nothing"
    assert "at least one thing" in page.match.value
    page.number.value = 4  # what is shown is what is in that scene
    named = [thing["shape"].value for thing in page.things if thing["shape"].value != "nothing"]
    assert len(named) == len(page.scene.things)


def test_each_word_has_a_map_of_each_model(page):
    page.sentence.value = "a red ball on the snow"
    for word in page.sentence.value.split():
        for name in ("Naive (ViT)", "SEGL"):
            assert f'alt="where &#x27;{word}&#x27; looks, {name}"' in page.match.value


def test_words_that_the_models_have_never_read_are_named(page):
    page.sentence.value = "a red dog on the snow"
    assert "Not in the vocabulary, so read letter by letter: dog." in page.match.value
    page.sentence.value = "a red ball on the snow"
    assert "vocabulary" not in page.match.value
    page.sentence.value = "  "
    assert page.match.value == ""


def test_the_answers_are_the_likeliest(page):
    page.suggest[QUESTION].click()
    found = answers(page.vqa, page.image, page.question.value)
    assert found[0][0] == page.vqa.answer(page.image, page.question.value)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
    assert f'class="answer">{found[0][0]}</b>' in page.answer.value


def test_a_picture_of_ones_own(page):
    page.sentence.value = "a red ball"
    buffer = io.BytesIO()
    Image.effect_noise((1600, 400), 60).save(buffer, "png")
    file = {"name": "own.png", "type": "image/png", "size": len(buffer.getvalue()), "last_modified": datetime.now(UTC)}
    page.upload.value = ({**file, "content": memoryview(buffer.getvalue())},)
    assert page.image.size == (800, 200) and "your own picture" in page.view.value
    assert shares(page) and "of this picture" not in page.match.value
    starts_a_program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for data in (b"no picture", starts_a_program):
        page.take(Path("own.png"), data)
        assert "own.png is truncated or not an image" in page.view.value
    page.number.value += 1
    assert page.shown == "scene"


def test_of_a_data_set_it_shows_the_test_images_with_their_captions(shared_results, tiny_corpus):
    runs = (Run("tiny", name, data_root=str(tiny_corpus.root)) for name in ("naive_vit", "segl"))
    page = AskPage(*runs, scene=1)
    own = tiny_corpus.split("test")[1]
    assert page.number.description == "photograph" and page.shown == "photograph"
    assert page.image.tobytes() == tiny_corpus.read_image(own).tobytes()
    assert page.sentence.value in own.captions and "It was written for this picture." in page.match.value
    page.suggest[OTHER].click()
    assert page.sentence.value not in own.captions and "It was not written for this picture." in page.match.value
    page.suggest[TRUE].click()
    page.number.value = 2
    assert "It was not written for this picture." in page.match.value
    page.sentence.value = "something that nobody has said"
    assert "this picture." not in page.match.value
    page.suggest[QUESTION].click()
    assert page.question.value.endswith("?") and "Right is" not in page.answer.value


def test_where_nobody_is_it_shows_what_it_begins_with(page, monkeypatch, tmp_path):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    page.start()
    assert page.match.value in shown[0].data and page.answer.value in shown[0].data
    monkeypatch.setenv("JPY_SESSION_NAME", "08_ask_the_model.ipynb")
    page.start()
    assert shown[1] is page.panel
    with pytest.raises(UserError, match="no such file"):
        AskPage(*RUNS, picture=str(tmp_path / "none.png"))
