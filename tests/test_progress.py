from vlp_lib import progress
from vlp_lib.progress import Progress


def test_kept_output_has_a_line_each_note_and_after_ten_silent_seconds(monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("pretrain", 100) as bar:
        for _ in range(10):
            clock[0] += 4.0
            bar.step(0.25)
        bar.note("val_loss 1.0")
        clock[0] += 9.0
        bar.step(0.125)
    assert capsys.readouterr().out.splitlines() == [
        "pretrain  step 3/100  loss 0.2500  388 s left",
        "pretrain  step 6/100  loss 0.2500  376 s left",
        "pretrain  step 9/100  loss 0.2500  364 s left",
        "pretrain  step 10/100  val_loss 1.0  360 s left",
    ]


def test_the_first_step_foretells_nothing(monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("pretrain", 100, start=50) as bar:
        bar.note("val_loss 2.0")
        for seconds in (60.0, 11.0, 11.0):
            clock[0] += seconds
            bar.step()
    assert capsys.readouterr().out.splitlines() == [
        "pretrain  step 50/100  val_loss 2.0",
        "pretrain  step 51/100",
        "pretrain  step 52/100    528 s left",
        "pretrain  step 53/100    517 s left",
    ]
