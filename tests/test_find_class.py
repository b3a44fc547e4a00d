"""A class by what somebody types, and the nearest names where there is none."""

import pytest

from clevit_jax.inference.class_names import find_class, nearest_names

TULIPS = ("Tulipa", "Rosa canina", "Liriodendron tulipifera", "Caf\u00e9", "Quercus_robur")


@pytest.mark.parametrize(
    ("typed", "number"),
    [("Tulipa", 0), ("Rosa canina", 1), ("Cafe\u0301", 3), ("2", 2), ("0", 0)],
)
def test_which_is_meant(typed, number):
    """By name, however its accents are stored, or by number."""
    assert find_class(typed, TULIPS, "run") == number


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("tulip", "did you mean 'Tulipa' or 'Liriodendron tulipifera'?"),
        ("TULIPA", "did you mean 'Tulipa'?"),
        ("rosa-canina", "did you mean 'Rosa canina'?"),
        ("quercus robur ", "did you mean 'Quercus_robur'?"),
        ("Rosa canna", "did you mean 'Rosa canina'?"),
        ("xyz", "its classes are 'Tulipa', 'Rosa canina', 'Liriodendron tulipifera', "),
        ("7", "its classes are 'Tulipa', "),
    ],
)
def test_the_nearest_names(typed, nearest):
    with pytest.raises(ValueError, match=r"^run has no class ") as error:
        find_class(typed, TULIPS, "run")
    assert nearest in str(error.value)


def test_names_that_are_numbers():
    """Then a number is a name, and no other class is taken for it."""
    assert find_class("2", ("1", "2", "10"), "run") == 1
    with pytest.raises(ValueError, match="run has no class '0'"):
        find_class("0", ("1", "2", "10"), "run")


def test_two_classes_of_one_name():
    with pytest.raises(ValueError, match="run has 2 classes 'a'; give a number instead: 0, 2"):
        find_class("a", ("a", "b", "a"), "run")


def test_names_without_letters():
    """Emoji, and vowel signs of Hindi, tell names apart."""
    roses = ("\U0001f339", "\U0001f33b", "\u0915\u093f", "\u0915\u0941")
    assert nearest_names("\U0001f339 ", roses) == ["\U0001f339"]
    assert nearest_names("\u0915\u0941.", roses)[0] == "\u0915\u0941"
