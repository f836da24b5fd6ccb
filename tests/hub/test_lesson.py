import pytest
import torch

from vlp_lib.hub.lesson import Lesson
from vlp_lib.run import Run


@pytest.mark.usefixtures("results")
def test_what_a_lesson_starts_from_fits_the_trained_model():
    """In the smallest profile with the kit's weights, whose images are larger."""
    lesson = Lesson(Run("smoke", "spl_large", 0), Run("smoke", "naive_vit", 0), label_maps=True)
    pairs = lesson.pairs_to_judge_by(8)
    side = lesson.config.image_size
    assert pairs.images.shape == (8, 3, side, side) and pairs.label_maps.shape == (8, side, side)
    with torch.inference_mode():
        losses = [network(pairs)["itm"] for network in (lesson.trained, lesson.new_model(), *lesson.others)]
    assert len(losses) == 3 and all(torch.isfinite(loss) for loss in losses)
    first, again = lesson.new_model(), lesson.new_model()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert len(list(lesson.batches(2))) == 2
    assert len(list(lesson.batches(10_000))) == lesson.run.config.training.steps
