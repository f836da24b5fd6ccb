import pytest

from vlp_lib.errors import UserError
from vlp_lib.settings import parse_parameter


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", 3),
        ("rate=1e-3", 1e-3),
        ("restart=true", True),
        ("restart=false", False),
        ("restart=False", False),
        ("nothing=None", None),
        ("variant=segl+0.5*ssul", "segl+0.5*ssul"),
        ("data_root=", ""),
        ("data.text_lengths=[12, 16]", [12, 16]),
        ("data_root=/a/b=c d", "/a/b=c d"),
    ],
)
def test_parameters_become_what_they_look_like(text, value):
    name, found = parse_parameter(text)
    assert name == text.partition("=")[0]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["seed", "", "=3"])
def test_what_is_no_parameter_is_named(text):
    with pytest.raises(UserError, match=f"'{text}' is no parameter: write name=value"):
        parse_parameter(text)


def test_a_broken_list_is_refused():
    with pytest.raises(UserError, match=r"is no list: write it as data\.text_lengths=\[1,2\]"):
        parse_parameter("data.text_lengths=[12,")
