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

from cofi_tune.data.lexicon import (
    BESIDE,
    HANDLING,
    INTRANSITIVE,
    IRREGULAR,
    LOOKS,
    MEN,
    MOODS,
    OBJECT_DETERMINERS,
    PEOPLE,
    PLACES,
    PRONOUNS,
    THERE_DETERMINERS,
    THINGS,
    TIMES,
    TRANSITIVE,
    WOMEN,
    a_person,
    a_place,
    a_thing,
    be,
    coin,
    number,
    pick,
    present,
    rarely,
)

# Every kind can give its share of this many sentences, with room to spare.
CAPACITY = 100_000

Pair = tuple[str, str]


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


def _sentence(*parts: str, end: str = ".") -> str:
    text = " ".join(" ".join(parts).split())
    return text[0].upper() + text[1:] + end


def _twins(before: str, good: str, bad: str, after: str = "", end: str = ".") -> Pair:
    return _sentence(before, good, after, end=end), _sentence(before, bad, after, end=end)


def _predicates(rng: random.Random, plural: bool) -> Pair:
    """A predicate that agrees with a subject of that number, and one that does not."""
    if coin(rng):
        verbs, rest = (be(plural), be(not plural)), pick(rng, (*MOODS, *PLACES))
    else:
        transitive = coin(rng)
        base = pick(rng, TRANSITIVE if transitive else INTRANSITIVE)[0]
        verbs = present(base, plural), present(base, not plural)
        rest = a_person(rng) if transitive else pick(rng, (*PLACES, "every day"))
    return f"{verbs[0]} {rest}", f"{verbs[1]} {rest}"


def _subject_verb_agreement(rng: random.Random) -> Pair:
    plural = rarely(rng)
    return _twins(a_person(rng, plural), *_predicates(rng, plural))


def _agreement_across_phrase(rng: random.Random) -> Pair:
    plural = rarely(rng)
    subject = f"{a_person(rng, plural)} {pick(rng, BESIDE)} {a_person(rng)}"
    return _twins(subject, *_predicates(rng, plural))


def _determiner_noun_agreement(rng: random.Random) -> Pair:
    plural = rarely(rng)
    adjective = pick(rng, LOOKS) if coin(rng) else ""
    determiner = pick(rng, OBJECT_DETERMINERS[plural])
    before = f"{a_person(rng)} {pick(rng, HANDLING)[1]} {determiner} {adjective}"
    noun = pick(rng, THINGS)
    return _twins(before, number(noun, plural), number(noun, not plural), a_place(rng))


def _word_order(rng: random.Random) -> Pair:
    adjective, noun = pick(rng, MOODS), number(pick(rng, PEOPLE), rarely(rng))
    verb, thing = pick(rng, IRREGULAR)[1], a_thing(rng)
    preposition, place = pick(rng, PLACES).split(" ", 1)
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
    transitive = rarely(rng)
    verb = pick(rng, TRANSITIVE if transitive else INTRANSITIVE)[1]
    objects = ("", a_person(rng))
    before, after = f"{a_person(rng)} {verb}", pick(rng, (*PLACES, "again"))
    return _twins(before, objects[transitive], objects[not transitive], after)


def _reflexive(rng: random.Random) -> Pair:
    plural, female = rarely(rng), rarely(rng)
    subject = "the " + number(pick(rng, WOMEN if female else MEN), plural)
    if rarely(rng):
        subject += f" {pick(rng, BESIDE)} the {number(pick(rng, MEN + WOMEN), rarely(rng))}"
    good = "themselves" if plural else ("himself", "herself")[female]
    bad = rng.choice([word for word in ("himself", "herself", "themselves") if word != good])
    return _twins(f"{subject} {pick(rng, TRANSITIVE)[1]}", good, bad, a_place(rng))


def _polarity(rng: random.Random) -> Pair:
    """The negation has to come before "ever" and "any"."""
    one, other, (base, past) = pick(rng, PEOPLE), pick(rng, PEOPLE), pick(rng, TRANSITIVE)
    if coin(rng):
        first, clause, second = "no", f"{one} has ever {past}", "the"
    else:
        first, clause, second = "the", f"{number(one, coin(rng))} did not {base}", "any"
        other = number(other, True)
    rest = f"{other} {a_place(rng)}"
    return _sentence(first, clause, second, rest), _sentence(second, clause, first, rest)


def _question(rng: random.Random) -> Pair:
    """The auxiliary comes before the subject, and "what", unlike "why", leaves a gap."""
    subject, auxiliary = a_person(rng), pick(rng, ("did", "will"))
    verb, place = pick(rng, HANDLING)[0], a_place(rng)
    adverb = coin(rng)
    word = pick(rng, ("why", "when")) if adverb else "what"
    objects = ("", a_thing(rng))
    if coin(rng):
        good, bad = f"{auxiliary} {subject}", f"{subject} {auxiliary}"
        return _twins(word, good, bad, f"{verb} {objects[adverb]} {place}", end="?")
    before = f"{word} {auxiliary} {subject} {verb}"
    return _twins(before, objects[adverb], objects[not adverb], place, end="?")


def _auxiliary_form(rng: random.Random) -> Pair:
    plural = rarely(rng)
    base, past, participle, gerund = pick(rng, IRREGULAR)
    auxiliary, good, wrong = pick(
        rng,
        (
            ("will", base, (past, participle, gerund)),
            ("have" if plural else "has", participle, (base, past, gerund)),
            (be(plural), gerund, (base, past, participle)),
            # Not the gerund, which makes a caption; not the base, which may be the present.
            ("", past, (participle,)),
        ),
    )
    return _twins(f"{a_person(rng, plural)} {auxiliary}", good, rng.choice(wrong), a_thing(rng))


def _pronoun_case(rng: random.Random) -> Pair:
    subject, object_ = pick(rng, PRONOUNS)
    person, verb, place = a_person(rng), pick(rng, TRANSITIVE)[1], a_place(rng)
    if coin(rng):
        return _twins("", subject, object_, f"{verb} {person} {place}")
    return _twins(f"{person} {verb}", object_, subject, place)


def _tense(rng: random.Random) -> Pair:
    future = rarely(rng)
    base, past, *_ = pick(rng, IRREGULAR)
    clause = f"{a_person(rng)} {'will ' + base if future else past} {a_thing(rng)}"
    good, bad = pick(rng, TIMES[future]), pick(rng, TIMES[not future])
    return _twins("", good, bad, clause) if coin(rng) else _twins(clause, good, bad)


def _relative_clause(rng: random.Random) -> Pair:
    """A relative clause lacks one noun phrase: neither none nor two."""
    one, other, verb = a_person(rng), a_person(rng), pick(rng, TRANSITIVE)[1]
    good = rng.choice((f"{verb} {other}", f"{one} {verb}"))
    bad = rng.choice((verb, f"{one} {verb} {other}"))
    return _twins(f"{a_person(rng)} who", good, bad, pick(rng, INTRANSITIVE)[1])


def _there_insertion(rng: random.Random) -> Pair:
    nouns, adjectives = rng.choice(((PEOPLE, MOODS), (THINGS, LOOKS)))
    noun, place = pick(rng, nouns), pick(rng, PLACES)
    adjective = pick(rng, adjectives) if coin(rng) else ""
    if coin(rng):
        every, a = (place.replace("the", word) for word in ("every", "a"))
        good, bad = f"a {adjective} {noun} {every}", f"every {adjective} {noun} {a}"
        return _twins("there is", good, bad)
    plural = rarely(rng)
    noun = f"{pick(rng, THERE_DETERMINERS[plural])} {adjective} {number(noun, plural)}"
    return _twins("there", be(plural), be(not plural), f"{noun} {place}")


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
