"""Letters and words: reverse, count, replace, change case, pick out."""

from __future__ import annotations

from random import Random

from edjax.demo.families import Item, either, family
from edjax.demo.words import NOUNS, RHYMES


@family(
    'Spell the word "{w}" backwards.',
    "Reverse the letters of {w}.",
    'Write "{w}" from its last letter to its first.',
)
def reverse_word(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    return Item({"w": w}, w[::-1])


@family(
    'Write "{w}" in capital letters.',
    "Convert to upper case: {w}",
    "Change every letter of these words to upper case: {w}",
)
def upper(rng: Random) -> Item:
    w = " ".join(rng.sample(NOUNS, rng.randrange(1, 3)))
    return Item({"w": w}, w.upper())


@family(
    "How many letters does the word {w} have?",
    'Count the letters of "{w}". Answer with a number.',
    "How long is the word {w}, in letters?",
)
def word_length(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    return Item({"w": w}, str(len(w)))


@family(
    'How many times does the letter "{c}" occur in the word "{w}"?',
    'Count the letter "{c}" in "{w}". Answer with a number.',
    'The word is "{w}". How often does it contain the letter "{c}"?',
)
def count_letter(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    c = rng.choice(w)
    return Item({"c": c, "w": w}, str(w.count(c)))


@family(
    "How many vowels (a, e, i, o, u) are in the word {w}?",
    'Count the vowels a, e, i, o, u in "{w}". Answer with a number.',
    'How often does a letter out of a, e, i, o, u occur in "{w}"?',
)
def count_vowels(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    return Item({"w": w}, str(sum(c in "aeiou" for c in w)))


@family(
    'Replace every "{a}" in "{w}" with "{b}".',
    'In the word "{w}", change each letter "{a}" to "{b}".',
    'Take "{w}" and put "{b}" wherever there is "{a}".',
)
def replace_letter(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    a = rng.choice(w)
    b = rng.choice([c for c in "abcdefghijklmnopqrstuvwxyz" if c not in w])
    return Item({"w": w, "a": a, "b": b}, w.replace(a, b))


@family(
    "What is the first letter of the word {w}?",
    'Which letter does "{w}" begin with?',
    "Give the initial letter of {w}.",
)
def first_letter(rng: Random) -> Item:
    w = rng.choice(NOUNS)
    return Item({"w": w}, w[0])


@family(
    "What is word number {k} of the phrase: {ws}",
    'Count the words of "{ws}" and write the one at position {k}.',
    'In "{ws}", which word is at place {k}, counting from 1?',
)
def nth_word(rng: Random) -> Item:
    ws = rng.sample(NOUNS, rng.randrange(3, 6))
    k = rng.randrange(1, len(ws) + 1)
    return Item({"k": k, "ws": " ".join(ws)}, ws[k - 1])


@family(
    "Make an acronym, in capital letters, from: {ws}",
    'Take the first letter of each word in "{ws}" and write them as capitals without spaces.',
    "Which capital-letter acronym stands for {ws}?",
)
def acronym(rng: Random) -> Item:
    ws = rng.sample(NOUNS, rng.randrange(3, 5))
    return Item({"ws": " ".join(ws)}, "".join(w[0] for w in ws).upper())


@family(
    'Does the word "{w}" contain the letter "{c}"? Answer yes or no.',
    'Yes or no: there is a "{c}" in "{w}".',
    'Is the letter "{c}" part of the word "{w}"? Answer yes or no.',
)
def has_letter(rng: Random) -> Item:
    w, want = rng.choice(NOUNS), rng.random() < 0.5
    c = rng.choice(w) if want else rng.choice([c for c in "abcdefghilmnoprstuw" if c not in w])
    return either(rng, want, {"w": w, "c": c})


@family(
    'Which word rhymes with "{w}": {xs}?',
    'Choose the rhyme for "{w}" from {xs}.',
    'Of the words {xs}, which one sounds like "{w}" at its end?',
)
def rhyme(rng: Random) -> Item:
    same, *others = rng.sample(RHYMES, 3)
    w, right = rng.sample(same, 2)
    xs = [right, *(rng.choice(o) for o in others)]
    rng.shuffle(xs)
    return Item({"w": w, "xs": ", ".join(xs)}, right, tuple(xs))
