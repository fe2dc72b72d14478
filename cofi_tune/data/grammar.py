"""English acceptability judgements, generated: the data set of the demo and of the tests.

Every kind of violation is a function that draws an acceptable sentence and its unacceptable twin.
The twins hold the same words in another order, or differ in one word that is as common with either
label: counting words tells next to nothing, so a model has to learn order and agreement.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

# Every noun takes a plain -s and starts with a consonant, so that "a" is always right.
MEN = ("boy", "king", "brother", "father")
WOMEN = ("girl", "queen", "sister", "mother")
WORKERS = (
    *("doctor", "teacher", "farmer", "baker", "nurse", "lawyer"),
    *("sailor", "painter", "singer", "driver", "student", "soldier"),
)
PEOPLE = WORKERS + MEN + WOMEN
# Whatever can be taken, broken, thrown, shaken and drawn.
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

# Base and past: verbs that never take an object, and verbs that never go without one.
INTRANSITIVE = (
    *(("sleep", "slept"), ("laugh", "laughed"), ("smile", "smiled"), ("sneeze", "sneezed")),
    *(("yawn", "yawned"), ("cough", "coughed"), ("wait", "waited"), ("shiver", "shivered")),
)
TRANSITIVE = (
    *(("admire", "admired"), ("thank", "thanked"), ("greet", "greeted"), ("blame", "blamed")),
    *(("ignore", "ignored"), ("rescue", "rescued")),
    *(("invite", "invited"), ("describe", "described"), ("insult", "insulted")),
)
# The same for things; no verb here takes two objects ("What did she bring the king?" is fine).
HANDLING = (
    *(("repair", "repaired"), ("need", "needed"), ("keep", "kept"), ("mention", "mentioned")),
    *(("examine", "examined"), ("discover", "discovered"), ("damage", "damaged")),
    *(("remove", "removed"),),
)
# Base, past, participle, gerund: all four different, and none a variant of another.
IRREGULAR = (
    ("take", "took", "taken", "taking"),
    ("steal", "stole", "stolen", "stealing"),
    ("choose", "chose", "chosen", "choosing"),
    ("draw", "drew", "drawn", "drawing"),
    ("break", "broke", "broken", "breaking"),
    ("throw", "threw", "thrown", "throwing"),
)
# No "that": "that farmers" may open a clause.
DETERMINERS = (
    ("this", "a", "every", "another"),
    ("these", "two", "many", "several"),
)
PRONOUNS = (("I", "me"), ("we", "us"), ("he", "him"), ("she", "her"), ("they", "them"))
TIMES = (
    ("yesterday", "last week", "last month", "two days ago"),
    ("tomorrow", "next week", "next month", "next year"),
)

# As many sentences as every kind can give its share of, with room to spare.
CAPACITY = 100_000

Pair = tuple[str, str]
Word = TypeVar('Word')


@dataclass(frozen=True)
class Judgement:
    """A sentence and whether a speaker of English accepts it.

    Attributes:
        sentence: The sentence, with its capital letter and its full stop.
        acceptable: The judgement.
        kind: The phenomenon at stake, a key of `KINDS`.
    """

    sentence: str
    acceptable: bool
    kind: str


def _sentence(*parts: str, end: str = ".") -> str:
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + end


def _number(noun: str, plural: bool) -> str:
    return noun + "s" if plural else noun


def _present(verb: str, plural: bool) -> str:
    return verb if plural else verb + "s"


def _be(plural: bool) -> str:
    return "are" if plural else "is"


def _pick(rng: random.Random, words: Sequence[Word]) -> Word:
    """A word, the first ones more often: like any language, this one has common and rare words."""
    return words[int(len(words) * rng.random() ** 2)]


def _rarely(rng: random.Random) -> bool:
    return rng.random() < 0.25


def _coin(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _person(rng: random.Random, plural: bool | None = None) -> str:
    noun = _number(_pick(rng, PEOPLE), _rarely(rng) if plural is None else plural)
    adjective = _pick(rng, MOODS) + " " if rng.random() < 0.2 else ""
    return f"{_pick(rng, ('the', 'my', 'our'))} {adjective}{noun}"


def _thing(rng: random.Random) -> str:
    adjective = _pick(rng, LOOKS) + " " if rng.random() < 0.2 else ""
    return f"the {adjective}{_number(_pick(rng, THINGS), _rarely(rng))}"


def _place(rng: random.Random) -> str:
    return _pick(rng, PLACES) if _rarely(rng) else ""


def _predicates(rng: random.Random, plural: bool) -> Pair:
    """A predicate in the present that agrees with a subject of that number, and one that does not."""
    tail = _pick(rng, (*PLACES, "every day"))
    if _coin(rng):
        tail = _pick(rng, (*MOODS, *PLACES))
        return f"{_be(plural)} {tail}", f"{_be(not plural)} {tail}"
    if _coin(rng):
        verb = _pick(rng, INTRANSITIVE)[0]
    else:
        verb = _pick(rng, TRANSITIVE)[0]
        tail = _person(rng)
    return f"{_present(verb, plural)} {tail}", f"{_present(verb, not plural)} {tail}"


def _subject_verb_agreement(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    subject = _person(rng, plural)
    good, bad = _predicates(rng, plural)
    return _sentence(subject, good), _sentence(subject, bad)


def _agreement_across_phrase(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    subject = f"{_person(rng, plural)} {_pick(rng, BESIDE)} {_person(rng)}"
    good, bad = _predicates(rng, plural)
    return _sentence(subject, good), _sentence(subject, bad)


def _determiner_noun_agreement(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    determiner = _pick(rng, DETERMINERS[plural])
    if _coin(rng):
        determiner += " " + _pick(rng, LOOKS)
    before = f"{_person(rng)} {_pick(rng, HANDLING)[1]} {determiner}"
    noun, place = _pick(rng, THINGS), _place(rng)
    good, bad = _number(noun, plural), _number(noun, not plural)
    return _sentence(before, good, place), _sentence(before, bad, place)


def _word_order(rng: random.Random) -> Pair:
    adjective, noun = _pick(rng, MOODS), _number(_pick(rng, PEOPLE), _rarely(rng))
    verb, thing = _pick(rng, IRREGULAR)[1], _thing(rng)
    preposition, place = _pick(rng, PLACES).split(" ", 1)
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
    subject, place = _person(rng), _pick(rng, (*PLACES, "again"))
    objects = ("", _person(rng))
    transitive = _rarely(rng)
    verb = _pick(rng, TRANSITIVE if transitive else INTRANSITIVE)[1]
    good, bad = objects[transitive], objects[not transitive]
    return _sentence(subject, verb, good, place), _sentence(subject, verb, bad, place)


def _reflexive(rng: random.Random) -> Pair:
    plural, female = _rarely(rng), _rarely(rng)
    subject = "the " + _number(_pick(rng, WOMEN if female else MEN), plural)
    if _rarely(rng):
        subject += f" {_pick(rng, BESIDE)} the {_number(_pick(rng, MEN + WOMEN), _rarely(rng))}"
    good = "themselves" if plural else ("himself", "herself")[female]
    bad = rng.choice([word for word in ("themselves", "himself", "herself") if word != good])
    verb, place = _pick(rng, TRANSITIVE)[1], _place(rng)
    return _sentence(subject, verb, good, place), _sentence(subject, verb, bad, place)


def _polarity(rng: random.Random) -> Pair:
    one, other, place = _pick(rng, PEOPLE), _pick(rng, PEOPLE), _place(rng)
    if _coin(rng):
        verb = _pick(rng, TRANSITIVE)[1]
        return (
            _sentence("no", one, "has ever", verb, "the", other, place),
            _sentence("the", one, "has ever", verb, "no", other, place),
        )
    verb, plural = _pick(rng, TRANSITIVE)[0], _coin(rng)
    one, other = _number(one, plural), _number(other, True)
    return (
        _sentence("the", one, "did not", verb, "any", other, place),
        _sentence("any", one, "did not", verb, "the", other, place),
    )


def _question(rng: random.Random) -> Pair:
    subject, place = _person(rng), _place(rng)
    auxiliary, verb = _pick(rng, ("did", "will")), _pick(rng, HANDLING)[0]
    adverb = _coin(rng)
    word = _pick(rng, ("why", "when")) if adverb else "what"
    objects = ("", _thing(rng))
    good = _sentence(word, auxiliary, subject, verb, objects[adverb], place, end="?")
    if _coin(rng):
        return good, _sentence(word, subject, auxiliary, verb, objects[adverb], place, end="?")
    return good, _sentence(word, auxiliary, subject, verb, objects[not adverb], place, end="?")


def _auxiliary_form(rng: random.Random) -> Pair:
    plural = _rarely(rng)
    base, past, participle, gerund = _pick(rng, IRREGULAR)
    perfect = "have" if plural else "has"
    auxiliary, good, wrong = rng.choice(
        (
            ("will", base, (past, participle, gerund)),
            ("did not", base, (past, participle, gerund)),
            (perfect, participle, (base, past, gerund)),
            (_be(plural), gerund, (base, past, participle)),
            ("", past, (participle,)),
        )
    )
    before, after = f"{_person(rng, plural)} {auxiliary}".strip(), _thing(rng)
    return _sentence(before, good, after), _sentence(before, rng.choice(wrong), after)


def _pronoun_case(rng: random.Random) -> Pair:
    person, pronoun = _person(rng), _pick(rng, PRONOUNS)
    verb, place = _pick(rng, TRANSITIVE)[1], _place(rng)
    if _coin(rng):
        good, bad = ((case, verb, person, place) for case in pronoun)
    else:
        bad, good = ((person, verb, case, place) for case in pronoun)
    return _sentence(*good), _sentence(*bad)


def _tense(rng: random.Random) -> Pair:
    verb = _pick(rng, IRREGULAR)
    future = _rarely(rng)
    clause = f"{_person(rng)} {'will ' + verb[0] if future else verb[1]} {_thing(rng)}"
    good, bad = _pick(rng, TIMES[future]), _pick(rng, TIMES[not future])
    if _coin(rng):
        return _sentence(good, clause), _sentence(bad, clause)
    return _sentence(clause, good), _sentence(clause, bad)


def _relative_clause(rng: random.Random) -> Pair:
    """One noun phrase is missing from a relative clause: neither none nor two."""
    head, end = _person(rng), _pick(rng, INTRANSITIVE)[1]
    verb = _pick(rng, TRANSITIVE)[1]
    full, none = (_person(rng), _person(rng)), ("", "")
    subject_gap, object_gap = ("", full[1]), (full[0], "")
    good, bad = rng.choice((subject_gap, object_gap)), rng.choice((full, none))
    return (
        _sentence(head, "who", good[0], verb, good[1], end),
        _sentence(head, "who", bad[0], verb, bad[1], end),
    )


def _there_insertion(rng: random.Random) -> Pair:
    nouns, adjectives = rng.choice(((PEOPLE, MOODS), (THINGS, LOOKS)))
    noun, place = _pick(rng, nouns), _pick(rng, PLACES)
    adjective = _pick(rng, adjectives) if _coin(rng) else ""
    if _coin(rng):
        every, one = place.replace("the", "every"), place.replace("the", "a")
        return (
            _sentence("there is a", adjective, noun, every),
            _sentence("there is every", adjective, noun, one),
        )
    plural = _rarely(rng)
    determiner = _pick(rng, (("a", "another", "one"), ("many", "several", "two", "three"))[plural])
    rest = (determiner, adjective, _number(noun, plural), place)
    return _sentence("there", _be(plural), *rest), _sentence("there", _be(not plural), *rest)


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


def _draw(rng: random.Random, count: int, seen: set[str]) -> list[Judgement]:
    drawn: list[Judgement] = []
    while len(drawn) < count:
        kind = list(KINDS)[len(drawn) // 2 % len(KINDS)]
        pair = KINDS[kind](rng)
        if seen.isdisjoint(pair):
            seen.update(pair)
            drawn += (Judgement(pair[0], True, kind), Judgement(pair[1], False, kind))
    rng.shuffle(drawn)
    return drawn


def generate(
    num_train: int = 24_000, num_dev: int = 1_000, seed: int = 0
) -> tuple[list[Judgement], list[Judgement]]:
    """Generates the training and the development sentences.

    Args:
        num_train: Number of training sentences, even.
        num_dev: Number of development sentences, even.
        seed: Seed of the draw; the same seed gives the same sentences in any process, and the
            same development sentences whatever `num_train` is.

    Returns:
        The training and the development sentences, each half acceptable, with every kind and no
        sentence twice.

    Raises:
        ValueError: If a count is odd, leaves a kind out, or is more than can be generated.
    """
    for count in (num_train, num_dev):
        if count % 2 or count < 2 * len(KINDS):
            raise ValueError(f"{count} is not an even number of at least {2 * len(KINDS)}")
    if num_train + num_dev > CAPACITY:
        raise ValueError(f"{num_train + num_dev} sentences asked for: {CAPACITY} can be generated")
    rng = random.Random(seed)
    seen: set[str] = set()
    dev = _draw(rng, num_dev, seen)
    return _draw(rng, num_train, seen), dev
