"""Topics from titles, and definitions from first sentences."""

from __future__ import annotations

import pytest

from mixup.mixture.topics import (
    Definition,
    definition_of,
    leans_on_topic,
    mentions,
    named_in_text,
    plural_kind,
    topic_of,
    with_article,
)


@pytest.mark.parametrize(
    ("title", "topic"),
    [
        ("Immanuel Kant", "Immanuel Kant"),
        ("Robert Fuller (actor)", "Robert Fuller"),
        ("Bath, Somerset", "Bath, Somerset"),
        ("Alabama () is a", "Alabama"),
        ("Algeria, officially the People's", "Algeria"),
        ("Alice O'Connor (born Alisa", "Alice O'Connor"),
        ("In Greek mythology, Achilles", "Achilles"),
        ("The Academy Award for", "The Academy Award"),
        ("This is a list", None),
        ("List of tallest buildings", None),
        ("A, or a, is", None),
        ("", None),
        ("!?", None),
        ("word " * 30, None),
    ],
)
def test_topic_of_a_title(title, topic):
    assert topic_of(title) == topic


@pytest.mark.parametrize(
    ("sentence", "topic", "definition"),
    [
        (
            "Bell 470 is a heritage-listed fire bell at Bathurst.",
            "Bell 470",
            Definition("is", "a heritage-listed fire bell", False),
        ),
        (
            "Ada Lovelace (born 1815) was an English mathematician and writer.",
            "Ada Lovelace",
            Definition("was", "an English mathematician", True),
        ),
        (
            "Lyudmila Pavlichenko (12 July 1916 – 10 October 1974) was a Soviet sniper.",
            "Lyudmila Pavlichenko",
            Definition("was", "a Soviet sniper", True),
        ),
        (
            "Dwarfism is a dualism model of growth.",
            "Dwarfism",
            Definition("is", "a dualism model of growth", False),
        ),
        ("The oak is a small, hardy tree.", "Oak", None),
        ("His brother Robert is a farmer in Ohio.", "Robert", None),
        ("The first sound recording device was the phonograph.", "Sound recording", None),
        ("Marwa Ali was an Egyptian woman.", "Murder of Marwa Ali", None),
        ("Bees fly.", "Bee", None),
    ],
)
def test_definition(sentence, topic, definition):
    assert definition_of(sentence, topic) == definition


@pytest.mark.parametrize(
    ("kind", "category"),
    [
        ("a heritage-listed fire bell", "Heritage-listed fire bells"),
        ("an American city", "American cities"),
        ("a wooden box", "Wooden boxes"),
        ("the capital city", None),
        ("a number", None),
        ("a conical volcano", None),
        ("a unit of length", None),
    ],
)
def test_a_category_is_the_plural_of_a_plain_kind(kind, category):
    assert plural_kind(Definition("is", kind, False)) == category


def test_a_topic_within_a_sentence():
    assert named_in_text("Emperor penguin", "The emperor penguin swims.") == "emperor penguin"
    assert named_in_text("Immanuel Kant", "Immanuel Kant wrote.") == "Immanuel Kant"
    assert named_in_text("Achilles", "The hero Achilles died; an achilles tendon.") == "Achilles"
    assert named_in_text("History of Tibet", "") == "the history of Tibet"
    assert named_in_text("Religion in Iraq", "") == "religion in Iraq"
    assert named_in_text("The Oscars", "At the Oscars of 1990") == "the Oscars"


def test_an_article_is_the_one_of_the_text():
    assert with_article("emperor penguin", "The emperor penguin is big.") == "the emperor penguin"
    assert with_article("bat", "A bat is a mammal.") == "a bat"
    assert with_article("Berlin", "In the Berlin Wall and the Berlin region Berlin is.") == "Berlin"


def test_mentions_and_leaning():
    assert mentions("Kant wrote.", "Immanuel Kant")
    assert not mentions("Hegel wrote.", "Immanuel Kant")
    assert leans_on_topic("The number is nine.", "National Insurance number")
    assert not leans_on_topic("The National Insurance number is nine.", "National Insurance number")
