"""Short passages made from parts: sentiment, topic, grammar, simple inference, and picking out a fact."""

from __future__ import annotations

from random import Random

from edjax.demo.families import Item, either, family
from edjax.demo.words import KINDS, NAMES, words

REVIEWED = words("movie hotel restaurant book concert phone camera museum course trip meal game")
GOOD = words("wonderful excellent delightful superb fantastic amazing brilliant great lovely outstanding")
BAD = words("terrible awful horrible disappointing dreadful boring useless poor unpleasant bad")
PRAISE = (
    "I would recommend it to everyone.",
    "I enjoyed every minute.",
    "It made my day.",
    "I will come back for sure.",
)
BLAME = (
    "I want my money back.",
    "I regret every minute.",
    "It ruined my day.",
    "I will never try it again.",
)

TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sports": (
        ("The goalkeeper", "The tennis champion", "The home team", "The young striker", "The coach"),
        ("won the final match", "scored twice in the second half", "lost the cup after penalties", "broke the record"),
    ),
    "food": (
        ("The chef", "Our grandmother", "The baker", "The new cook", "The pizza maker"),
        (
            "added garlic to the soup",
            "baked a cake with cream",
            "grilled fish with butter",
            "made a sauce for the pasta",
        ),
    ),
    "music": (
        ("The pianist", "The choir", "The guitar player", "The jazz band", "The orchestra"),
        ("played a slow melody", "recorded a new album", "tuned up before the concert", "repeated the chorus"),
    ),
    "weather": (
        ("The storm", "A cold front", "Heavy fog", "A warm wind", "The heavy rain"),
        ("will arrive tonight", "moves in from the north", "lasts until the morning", "brings a change of temperature"),
    ),
    "money": (
        ("The bank", "The stock market", "The investor", "The central bank", "The accountant"),
        ("reported higher profits", "reacted to the interest rates", "expects lower taxes", "watched the share prices"),
    ),
}
LABELS = ("positive", "negative")
MADE_UP = words("blick zorp wug dax tove mip gorn fep lomp trin quib snarf")
TRAITS = words("green small noisy friendly round clever sleepy striped heavy fast")
PLACES = words("kitchen garden library garage attic office bakery station park cellar")
OBJECTS = words("key umbrella letter phone lamp basket camera ticket scarf bottle")
ACTIONS = (
    ("walks to school", "walked to school", "will walk to school"),
    ("plays the piano", "played the piano", "will play the piano"),
    ("cooks dinner", "cooked dinner", "will cook dinner"),
    ("writes a letter", "wrote a letter", "will write a letter"),
    ("paints the fence", "painted the fence", "will paint the fence"),
    ("visits a friend", "visited a friend", "will visit a friend"),
    ("cleans the car", "cleaned the car", "will clean the car"),
    ("waters the flowers", "watered the flowers", "will water the flowers"),
)


@family(
    'Is this review positive or negative? "{text}"',
    'Classify the sentiment as positive or negative: "{text}"',
    'A customer wrote: "{text}" Was the opinion positive or negative?',
    'Decide the sentiment, positive or negative, of: "{text}"',
)
def sentiment(rng: Random) -> Item:
    good = rng.random() < 0.5
    thing, word, end = rng.choice(REVIEWED), rng.choice(GOOD if good else BAD), rng.choice(PRAISE if good else BLAME)
    return Item({"text": f"The {thing} was {word}. {end}"}, LABELS[not good], LABELS)


@family(
    'Is this comment happy or unhappy about the {thing}? "{text}"',
    '"{text}" Does the writer sound happy or unhappy with the {thing}?',
    'Label the mood about the {thing} as happy or unhappy: "{text}"',
)
def mood(rng: Random) -> Item:
    good, thing = rng.random() < 0.5, rng.choice(REVIEWED)
    if rng.random() < 0.5:
        text = (
            f"I expected something {rng.choice(BAD if good else GOOD)}, but it was {rng.choice(GOOD if good else BAD)}."
        )
    else:
        text = f"Not {rng.choice(BAD if good else GOOD)} at all: {rng.choice(PRAISE if good else BLAME)}"
    return Item({"text": text, "thing": thing}, "happy" if good else "unhappy", ("happy", "unhappy"))


@family(
    'What is the topic of this sentence: sports, food, music, weather or money? "{text}"',
    'Choose the topic (sports, food, music, weather, money): "{text}"',
    '"{text}" Is this about sports, food, music, weather or money?',
)
def topic(rng: Random) -> Item:
    name = rng.choice(tuple(TOPICS))
    who, did = TOPICS[name]
    when = rng.choice(("", "On Monday, ", "As we heard, ", "According to the news, ", "This week, ", "Today, "))
    subject = rng.choice(who)
    subject = subject[0].lower() + subject[1:] if when else subject
    return Item({"text": f"{when}{subject} {rng.choice(did)}."}, name, tuple(TOPICS))


@family(
    "What kind of thing is this: {x}? Choose from {kinds}.",
    'Choose the category of "{x}" from {kinds}.',
    'To which of these groups does "{x}" belong: {kinds}?',
)
def kind_of(rng: Random) -> Item:
    kinds = rng.sample([k for k in sorted(KINDS) if k not in ("colour", "garment")], 3)
    right = rng.choice(kinds)
    return Item({"x": rng.choice(KINDS[right]), "kinds": ", ".join(kinds)}, right, tuple(kinds))


@family(
    "{rule} {who} is a {a}. Is {who} {trait}? Answer yes or no.",
    "Facts: {rule} {who} is a {a}. Yes or no: {who} is {trait}.",
    "Suppose this: {rule} {who} is a {a}. Does it follow that {who} is {trait}? Answer yes or no.",
)
def syllogism(rng: Random) -> Item:
    want, a, trait = rng.random() < 0.5, rng.choice(MADE_UP), rng.choice(TRAITS)
    rule = f"{'All' if want else 'No'} {a}s are {trait}."
    return either(rng, want, {"rule": rule, "who": rng.choice(NAMES), "a": a, "trait": trait})


@family(
    'What is the value of "{x}": true or false?',
    'Evaluate the logical expression "{x}". Answer true or false.',
    'Is the expression "{x}" true or false?',
)
def boolean(rng: Random) -> Item:
    a, b, c = (rng.random() < 0.5 for _ in range(3))
    first, second = rng.choice(("and", "or")), rng.choice(("and", "or"))
    negated = rng.random() < 0.5
    inner = (a and b) if first == "and" else (a or b)
    value = (inner and (c != negated)) if second == "and" else (inner or (c != negated))
    text = f"({a} {first} {b}) {second} {'not ' if negated else ''}{c}".lower()
    return Item({"x": text}, "true" if value else "false", ("true", "false"))


@family(
    "{a} is taller than {b}. {b} is taller than {c}. Who is the {which}?",
    "{b} is shorter than {a}. {c} is shorter than {b}. Who is the {which}?",
    "{b} is taller than {c}, and {a} is taller than {b}. Who is the {which} of the three?",
)
def tallest(rng: Random) -> Item:
    a, b, c = rng.sample(NAMES, 3)
    which = rng.choice(("tallest", "shortest"))
    shown = [a, b, c]
    rng.shuffle(shown)
    return Item({"a": a, "b": b, "c": c, "which": which}, a if which == "tallest" else c, tuple(shown))


@family(
    "Is this sentence about the past, the present or the future? {text}",
    "Name the tense, past, present or future: {text}",
    'In "{text}", does it happen in the past, the present or the future?',
)
def tense(rng: Random) -> Item:
    i = rng.randrange(3)
    text = f"{rng.choice(NAMES)} {rng.choice(ACTIONS)[(1, 0, 2)[i]]}."
    return Item({"text": text}, ("past", "present", "future")[i], ("past", "present", "future"))


@family(
    "{a} gave the {x} to {b}. Who has the {x} now?",
    "{b} received the {x} from {a}. Who has the {x} now?",
    "{a} had the {x} and passed it on to {b}. Who owns the {x} after that?",
)
def receiver(rng: Random) -> Item:
    a, b = rng.sample(NAMES, 2)
    return Item({"a": a, "b": b, "x": rng.choice(OBJECTS)}, b, tuple(rng.sample((a, b), 2)))


@family(
    "{who} put the {x} in the {p} and then went to the {q}. Where is the {x}? Answer with one word.",
    "The {x} lies in the {p}. {who} waits in the {q}. In which place is the {x}? Answer with one word.",
    "{who} left the {x} in the {p} and works in the {q}. Name the place of the {x}, in one word.",
)
def where(rng: Random) -> Item:
    p, q = rng.sample(PLACES, 2)
    return Item({"who": rng.choice(NAMES), "x": rng.choice(OBJECTS), "p": p, "q": q}, p)


@family(
    'Fill the gap with "a" or "an": {who} sees ___ {x}.',
    'Which article is right, "a" or "an"? {who} draws ___ {x}.',
    'Choose "a" or "an" for the blank: There is ___ {x} next to {who}.',
)
def article(rng: Random) -> Item:
    if rng.random() < 0.5:
        x, answer = (
            rng.choice(words("apple egg orange island eagle umbrella onion elephant oven igloo uncle axe")),
            "an",
        )
    else:
        x, answer = rng.choice(words("banana dog house tree lemon yacht wolf unicorn tiger kite ladder car")), "a"
    return Item({"x": x, "who": rng.choice(NAMES)}, answer, ("a", "an"))
