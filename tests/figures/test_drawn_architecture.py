"""The drawing of the architecture says what the model is."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vlp_lib.bench.architecture import describe
from vlp_lib.figures.architecture import draw_architecture, stations
from vlp_lib.profiles import profile
from vlp_lib.variants import parse_variant

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHAPES = {"segl": (36, 128), "spl_large": (25, 128), "region": (16, 128), "naive_resnet": (36, 128)}
"""What `tiny`'s cross-modality encoder reads of a picture (docs/decisions.md; 25 of 36 cells is 100 of 144)."""


@pytest.mark.parametrize("name", ["segl", "spl_large", "region", "naive_resnet", "spl_small+0.5*segl", "segl+ssul"])
def test_every_parameter_is_in_one_station(name):
    tiny, variant = profile("tiny"), parse_variant(name)
    found = stations(tiny, variant)
    assert sum(one.parameters for one in found) == describe(tiny.model, variant, (48,)).total
    seen = [one.gives for one in found if one.stream == "vision" or one.replaces][-1]
    assert seen == SHAPES.get(name, seen)
    words = [one.text for one in ElementTree.fromstring(draw_architecture(tiny, variant)).iter() if one.text]
    assert all(one.title in words for one in found)


def test_the_papers_scale_has_its_layers():
    titles = [one.title for one in stations(profile("paper"), parse_variant("segl"))]
    assert {"9 transformer layers", "cross-modality layer 5 of 5", "patches of 32 × 32 pixels"} <= set(titles)


def test_the_drawing_of_the_documents_is_the_models():
    drawn = draw_architecture(profile("tiny"), parse_variant("segl"))
    command = "vlp model --profile tiny --variant segl --draw docs/architecture.svg"
    assert (DOCS / "architecture.svg").read_text(encoding="utf-8") == drawn, f"run `{command}`"
