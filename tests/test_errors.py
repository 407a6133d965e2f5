import pytest

from dsink_jax.errors import InputError, check_known, unknown

COLOURS = ("red", "green", "dark_green")


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)
    assert isinstance(unknown("colour", "x", COLOURS), InputError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gren", "Unknown colour 'gren'. Did you mean 'green'? Known colours: red, green, dark_green."),
        # The case of what was typed does not matter for the hint, and is kept in the message.
        ("RED", "Unknown colour 'RED'. Did you mean 'red'? Known colours: red, green, dark_green."),
        ("dark-green", "Unknown colour 'dark-green'. Did you mean 'dark_green'? Known colours: "),
        ("mauve", "Unknown colour 'mauve'. Known colours: red, green, dark_green."),
        ("", "Unknown colour ''. Known colours: red, green, dark_green."),
    ],
)
def test_message_of_an_unknown_name(name, message):
    assert str(unknown("colour", name, COLOURS)).startswith(message)
    with pytest.raises(InputError) as raised:
        check_known("colour", name, COLOURS)
    assert str(raised.value) == str(unknown("colour", name, COLOURS))


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("make", [tuple, list, dict.fromkeys, iter])
def test_known_names_pass(name, make):
    assert check_known("colour", name, make(COLOURS)) is None


@pytest.mark.parametrize("make", [tuple, list, dict.fromkeys, iter])
def test_names_may_come_in_any_iterable(make):
    # An iterator is used up by the first look at it.
    with pytest.raises(InputError, match=r"Did you mean 'red'\? Known colours: red, green, dark_green\."):
        check_known("colour", "rad", make(COLOURS))


def test_no_known_names():
    assert str(unknown("colour", "red", ())).startswith("Unknown colour 'red'.")
