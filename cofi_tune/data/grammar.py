"""English acceptability judgements, generated: the data set of the demo and of the tests.

Every kind of violation is a function that draws an acceptable sentence and its unacceptable twin.
The twins hold the same words in another order, or differ in one word that either label has: to
count words tells little, and a model has to learn order and agreement.

A small net should learn this in a minute, from nothing. Two things of natural language help it:
some words are common and some rare, and the unmarked form (singular, past) is the usual one. The
second gives each word a slight leaning, without which learning agreement starts much later.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

# Common words first. Nouns take a plain -s and, like adjectives, start with a consonant: "a" fits.
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

# Every kind can give its share of this many sentences, with room to spare.
CAPACITY = 100_000

Pair = tuple[str, str]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Judgement:
    """A sentence and whether a speaker of English accepts it.

    Attributes:
        sentence: The sentence, with its capital letter and its full stop or question mark.
        acceptable: The judgement.
        kind: The phenomenon at stake, a key of `KINDS`.
    """

    sentence: str
    acceptable: bool
    kind: str


def generate(
    num_train: int = 24_000, num_dev: int = 1_000, seed: int = 0
) -> tuple[list[Judgement], list[Judgement]]:
    """Generates the training and the development sentences.

    Args:
        num_train: Number of training sentences, even.
        num_dev: Number of development sentences, even.
        seed: Seed of the draw. The same seed gives the same sentences in any process, and the same
            development sentences whatever `num_train` is.

    Returns:
        The training and the development sentences: half of either is acceptable, either has every
        kind, and no sentence comes twice.

    Raises:
        ValueError: A count is odd, too small for every kind, or more than can be generated.
    """
    for count in (num_train, num_dev):
        if count % 2 or count < 2 * len(KINDS):
            raise ValueError(f"{count} is not an even number of at least {2 * len(KINDS)}")
    if num_train + num_dev > CAPACITY:
        raise ValueError(f"{num_train + num_dev} sentences asked for, {CAPACITY} can be generated")
    rng = random.Random(seed)
    seen: set[str] = set()
    dev = _draw(rng, num_dev, tuple(KINDS), seen)
    return _draw(rng, num_train, (*KINDS, *SLOW), seen), dev


def _draw(rng: random.Random, count: int, kinds: Sequence[str], seen: set[str]) -> list[Judgement]:
    drawn: list[Judgement] = []
    while len(drawn) < count:
        kind = kinds[len(drawn) // 2 % len(kinds)]
        twins = KINDS[kind](rng)
        # A twin may have been drawn before beside another sentence; balance needs both to be new.
        if seen.isdisjoint(twins):
            seen.update(twins)
            drawn += (Judgement(twins[0], True, kind), Judgement(twins[1], False, kind))
    rng.shuffle(drawn)
    return drawn


def _pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One of the items, the first ones more often."""
    return items[int(len(items) * rng.random() ** 2)]


def _coin(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _rarely(rng: random.Random) -> bool:
    return rng.random() < 0.2


def _sentence(*parts: str, end: str = ".") -> str:
    text = " ".join(" ".join(parts).split())
    return text[0].upper() + text[1:] + end


def _twins(before: str, good: str, bad: str, after: str = "", end: str = ".") -> Pair:
    return _sentence(before, good, after, end=end), _sentence(before, bad, after, end=end)


def _number(noun: str, plural: bool) -> str:
    return noun + "s" if plural else noun


def _present(verb: str, plural: bool) -> str:
    return verb if plural else verb + "s"


def _be(plural: bool) -> str:
    return "are" if plural else "is"


def _person(rng: random.Random, plural: bool | None = None) -> str:
    plural = _rarely(rng) if plural is None else plural
    determiner = _pick(rng, SUBJECT_DETERMINERS[plural])
    adjective = _pick(rng, MOODS) if _rarely(rng) else ""
    return f"{determiner} {adjective} {_number(_pick(rng, PEOPLE), plural)}"


def _thing(rng: random.Random) -> str:
    adjective = _pick(rng, LOOKS) if _rarely(rng) else ""
    return f"the {adjective} {_number(_pick(rng, THINGS), _rarely(rng))}"


def _place(rng: random.Random) -> str:
    return _pick(rng, PLACES) if _rarely(rng) else ""


def _predicates(rng: random.Random, plural: bool) -> Pair:
    """A predicate that agrees with a subject of that number, and one that does not."""
    if _coin(rng):
        verbs, rest = (_be(plural), _be(not plural)), _pick(rng, (*MOODS, *PLACES))
    else:
        transitive = _coin(rng)
        base = _pick(rng, TRANSITIVE if transitive else INTRANSITIVE)[0]
        verbs = _present(base, plural), _present(base, not plural)
        rest = _person(rng) if transitive else _pick(rng, (*PLACES, "every day"))
    return f"{verbs[0]} {rest}", f"{verbs[1]} {rest}"


def _subject_verb_agreement(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    return _twins(_person(rng, plural), *_predicates(rng, plural))


def _agreement_across_phrase(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    subject = f"{_person(rng, plural)} {_pick(rng, BESIDE)} {_person(rng)}"
    return _twins(subject, *_predicates(rng, plural))


def _determiner_noun_agreement(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    adjective = _pick(rng, LOOKS) if _coin(rng) else ""
    determiner = _pick(rng, OBJECT_DETERMINERS[plural])
    before = f"{_person(rng)} {_pick(rng, HANDLING)[1]} {determiner} {adjective}"
    noun = _pick(rng, THINGS)
    return _twins(before, _number(noun, plural), _number(noun, not plural), _place(rng))


def _word_order(rng: random.Random) -> Pair:
    adjective, noun = _pick(rng, MOODS), _number(_pick(rng, PEOPLE), _rarely(rng))
    verb, thing = _pick(rng, IRREGULAR)[1], _thing(rng)
    preposition, place = _pick(rng, PLACES).split(" ", 1)
    # Not "tired the king took ...": with a comma it is English.
    bad = rng.choice(
        (
            ("the", noun, adjective, verb, thing, preposition, place),
            (adjective, noun, "the", verb, thing, preposition, place),
            ("the", adjective, noun, thing, verb, preposition, place),
            ("the", adjective, noun, verb, thing, place, preposition),
        )
    )
    return _sentence("the", adjective, noun, verb, thing, preposition, place), _sentence(*bad)


def _argument_structure(rng: random.Random) -> Pair:
    transitive = _rarely(rng)
    verb = _pick(rng, TRANSITIVE if transitive else INTRANSITIVE)[1]
    objects = ("", _person(rng))
    before, after = f"{_person(rng)} {verb}", _pick(rng, (*PLACES, "again"))
    return _twins(before, objects[transitive], objects[not transitive], after)


def _reflexive(rng: random.Random) -> Pair:
    plural, female = _rarely(rng), _rarely(rng)
    subject = "the " + _number(_pick(rng, WOMEN if female else MEN), plural)
    if _rarely(rng):
        subject += f" {_pick(rng, BESIDE)} the {_number(_pick(rng, MEN + WOMEN), _rarely(rng))}"
    good = "themselves" if plural else ("himself", "herself")[female]
    bad = rng.choice([word for word in ("himself", "herself", "themselves") if word != good])
    return _twins(f"{subject} {_pick(rng, TRANSITIVE)[1]}", good, bad, _place(rng))


def _polarity(rng: random.Random) -> Pair:
    """The negation has to come before "ever" and "any"."""
    one, other, (base, past) = _pick(rng, PEOPLE), _pick(rng, PEOPLE), _pick(rng, TRANSITIVE)
    if _coin(rng):
        first, clause, second = "no", f"{one} has ever {past}", "the"
    else:
        first, clause, second = "the", f"{_number(one, _coin(rng))} did not {base}", "any"
        other = _number(other, True)
    rest = f"{other} {_place(rng)}"
    return _sentence(first, clause, second, rest), _sentence(second, clause, first, rest)


def _question(rng: random.Random) -> Pair:
    """The auxiliary comes before the subject, and "what", unlike "why", leaves a gap."""
    subject, auxiliary = _person(rng), _pick(rng, ("did", "will"))
    verb, place = _pick(rng, HANDLING)[0], _place(rng)
    adverb = _coin(rng)
    word = _pick(rng, ("why", "when")) if adverb else "what"
    objects = ("", _thing(rng))
    if _coin(rng):
        good, bad = f"{auxiliary} {subject}", f"{subject} {auxiliary}"
        return _twins(word, good, bad, f"{verb} {objects[adverb]} {place}", end="?")
    before = f"{word} {auxiliary} {subject} {verb}"
    return _twins(before, objects[adverb], objects[not adverb], place, end="?")


def _auxiliary_form(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    base, past, participle, gerund = _pick(rng, IRREGULAR)
    auxiliary, good, wrong = _pick(
        rng,
        (
            ("will", base, (past, participle, gerund)),
            ("have" if plural else "has", participle, (base, past, gerund)),
            (_be(plural), gerund, (base, past, participle)),
            # Not the gerund, which makes a caption; not the base, which may be the present.
            ("", past, (participle,)),
        ),
    )
    return _twins(f"{_person(rng, plural)} {auxiliary}", good, rng.choice(wrong), _thing(rng))


def _pronoun_case(rng: random.Random) -> Pair:
    subject, object_ = _pick(rng, PRONOUNS)
    person, verb, place = _person(rng), _pick(rng, TRANSITIVE)[1], _place(rng)
    if _coin(rng):
        return _twins("", subject, object_, f"{verb} {person} {place}")
    return _twins(f"{person} {verb}", object_, subject, place)


def _tense(rng: random.Random) -> Pair:
    future = _rarely(rng)
    base, past, *_ = _pick(rng, IRREGULAR)
    clause = f"{_person(rng)} {'will ' + base if future else past} {_thing(rng)}"
    good, bad = _pick(rng, TIMES[future]), _pick(rng, TIMES[not future])
    return _twins("", good, bad, clause) if _coin(rng) else _twins(clause, good, bad)


def _relative_clause(rng: random.Random) -> Pair:
    """A relative clause lacks one noun phrase: neither none nor two."""
    one, other, verb = _person(rng), _person(rng), _pick(rng, TRANSITIVE)[1]
    good = rng.choice((f"{verb} {other}", f"{one} {verb}"))
    bad = rng.choice((verb, f"{one} {verb} {other}"))
    return _twins(f"{_person(rng)} who", good, bad, _pick(rng, INTRANSITIVE)[1])


def _there_insertion(rng: random.Random) -> Pair:
    nouns, adjectives = rng.choice(((PEOPLE, MOODS), (THINGS, LOOKS)))
    noun, place = _pick(rng, nouns), _pick(rng, PLACES)
    adjective = _pick(rng, adjectives) if _coin(rng) else ""
    if _coin(rng):
        every, a = (place.replace("the", word) for word in ("every", "a"))
        good, bad = f"a {adjective} {noun} {every}", f"every {adjective} {noun} {a}"
        return _twins("there is", good, bad)
    plural = _rarely(rng)
    noun = f"{_pick(rng, THERE_DETERMINERS[plural])} {adjective} {_number(noun, plural)}"
    return _twins("there", _be(plural), _be(not plural), f"{noun} {place}")


KINDS: dict[str, Callable[[random.Random], Pair]] = {
    "subject_verb_agreement": _subject_verb_agreement,
    "agreement_across_phrase": _agreement_across_phrase,
    "determiner_noun_agreement": _determiner_noun_agreement,
    "word_order": _word_order,
    "argument_structure": _argument_structure,
    "reflexive": _reflexive,
    "polarity": _polarity,
    "question": _question,
    "auxiliary_form": _auxiliary_form,
    "pronoun_case": _pronoun_case,
    "tense": _tense,
    "relative_clause": _relative_clause,
    "there_insertion": _there_insertion,
}
# Kinds a net needs more examples of: they come twice as often in training.
SLOW = (
    *("subject_verb_agreement", "agreement_across_phrase", "determiner_noun_agreement"),
    *("argument_structure", "reflexive", "question", "auxiliary_form"),
)
