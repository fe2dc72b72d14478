"""Words and phrases of the generated grammar task (`grammar.py`); common words come first."""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

# Nouns take a plain -s and, like adjectives, start with a consonant: "a" fits.
MEN = ("boy", "king", "brother", "father")
WOMEN = ("girl", "queen", "sister", "mother")
WORKERS = ("doctor", "teacher", "farmer", "baker", "nurse", "lawyer", "sailor", "painter")
PEOPLE = WORKERS + MEN + WOMEN
# Whatever can be taken, stolen, chosen, drawn, broken and thrown.
THINGS = (
    *("lamp", "ring", "key", "clock", "bottle", "basket"),
    *("mirror", "candle", "chair", "hammer", "bowl", "guitar"),
)
MOODS = ("young", "tall", "clever", "happy", "tired", "famous", "quiet", "busy")
LOOKS = ("small", "heavy", "new", "round", "cheap", "blue", "green", "dirty")
PLACES = (
    *("in the garden", "near the river", "behind the school", "at the station"),
    *("in the kitchen", "beside the road", "outside the hotel", "at the market"),
)
# No "with": "the king with the queens" may pass for a plural.
BESIDE = ("near", "behind", "beside", "opposite")

# From here on, pairs are singular and plural. No "that": "that farmers" may open a clause.
SUBJECT_DETERMINERS = (("the", "this", "every", "my"), ("the", "these", "two", "many"))
OBJECT_DETERMINERS = (("this", "a", "every", "another"), ("these", "two", "many", "several"))
THERE_DETERMINERS = (("a", "another", "one"), ("many", "several", "two", "three"))

# Base and past: verbs that never take an object, and verbs that never go without one.
INTRANSITIVE = (
    *(("sleep", "slept"), ("laugh", "laughed"), ("smile", "smiled"), ("sneeze", "sneezed")),
    *(("yawn", "yawned"), ("cough", "coughed"), ("wait", "waited"), ("shiver", "shivered")),
)
TRANSITIVE = (
    *(("admire", "admired"), ("thank", "thanked"), ("greet", "greeted"), ("blame", "blamed")),
    *(("ignore", "ignored"), ("rescue", "rescued"), ("invite", "invited")),
    *(("describe", "described"), ("insult", "insulted")),
)
# The same for things; none takes two objects, as in "What did she bring the king?".
HANDLING = (
    *(("repair", "repaired"), ("need", "needed"), ("avoid", "avoided"), ("mention", "mentioned")),
    *(("examine", "examined"), ("discover", "discovered"), ("damage", "damaged")),
    *(("remove", "removed"),),
)
# Base, past, participle and gerund, all different; no "hide", whose participle may be "hid".
IRREGULAR = (
    ("take", "took", "taken", "taking"),
    ("steal", "stole", "stolen", "stealing"),
    ("choose", "chose", "chosen", "choosing"),
    ("draw", "drew", "drawn", "drawing"),
    ("break", "broke", "broken", "breaking"),
    ("throw", "threw", "thrown", "throwing"),
)
PRONOUNS = (("I", "me"), ("we", "us"), ("he", "him"), ("she", "her"), ("they", "them"))
# Past and future. No "in two days": "they drew it in two days" is fine.
TIMES = (
    ("yesterday", "last week", "last month", "two days ago"),
    ("tomorrow", "next week", "next month", "next year"),
)


def number(noun: str, plural: bool) -> str:
    """A noun, singular or plural."""
    return noun + "s" if plural else noun


def present(verb: str, plural: bool) -> str:
    """A verb in the third person of the present."""
    return verb if plural else verb + "s"


def be(plural: bool) -> str:
    """The copula in the present."""
    return "are" if plural else "is"


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One of the items, the first ones more often."""
    return items[int(len(items) * rng.random() ** 2)]


def coin(rng: random.Random) -> bool:
    """Heads."""
    return rng.random() < 0.5


def rarely(rng: random.Random) -> bool:
    """One time in five: marked forms, plurals and additions are the exception."""
    return rng.random() < 0.2


def a_person(rng: random.Random, plural: bool | None = None) -> str:
    """A noun phrase for people; singular as a rule."""
    plural = rarely(rng) if plural is None else plural
    determiner = pick(rng, SUBJECT_DETERMINERS[plural])
    adjective = pick(rng, MOODS) if rarely(rng) else ""
    return f"{determiner} {adjective} {number(pick(rng, PEOPLE), plural)}"


def a_thing(rng: random.Random) -> str:
    """A noun phrase for things."""
    adjective = pick(rng, LOOKS) if rarely(rng) else ""
    return f"the {adjective} {number(pick(rng, THINGS), rarely(rng))}"


def a_place(rng: random.Random) -> str:
    """A place, now and then."""
    return pick(rng, PLACES) if rarely(rng) else ""
