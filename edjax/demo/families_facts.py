"""Facts that everyone agrees on, as tables."""

from __future__ import annotations

from edjax.demo.families import table


def _pairs(text: str) -> dict[str, str]:
    """Read "key: value; key: value"."""
    parts = [part.split(": ") for part in " ".join(text.split()).split("; ")]
    return {key: value for key, value in parts}  # noqa: C416 - a part without its value fails here


CAPITALS = _pairs(
    """France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; Austria: Vienna; Greece: Athens;
    Poland: Warsaw; Hungary: Budapest; Sweden: Stockholm; Norway: Oslo; Finland: Helsinki; Denmark: Copenhagen;
    Ireland: Dublin; Belgium: Brussels; Bulgaria: Sofia; Romania: Bucharest; Croatia: Zagreb; Iceland: Reykjavik;
    Egypt: Cairo; Kenya: Nairobi; Morocco: Rabat; Ghana: Accra; Ethiopia: Addis Ababa; Japan: Tokyo; China: Beijing;
    Thailand: Bangkok; Vietnam: Hanoi; Nepal: Kathmandu; Iraq: Baghdad; Cuba: Havana; Canada: Ottawa; Peru: Lima;
    Mexico: Mexico City; Chile: Santiago; Argentina: Buenos Aires; Colombia: Bogota; Brazil: Brasilia;
    Australia: Canberra; New Zealand: Wellington; Russia: Moscow; Ukraine: Kyiv; Turkey: Ankara; Iran: Tehran"""
)
CONTINENTS = _pairs(
    """France: Europe; Germany: Europe; Italy: Europe; Spain: Europe; Sweden: Europe; Norway: Europe; Poland: Europe;
    Portugal: Europe; Greece: Europe; Ireland: Europe; Belgium: Europe; Austria: Europe; Kenya: Africa; Ghana: Africa;
    Morocco: Africa; Nigeria: Africa; Ethiopia: Africa; Tanzania: Africa; Senegal: Africa; Zambia: Africa; Mali: Africa;
    Japan: Asia; China: Asia; India: Asia; Thailand: Asia; Vietnam: Asia; Nepal: Asia; Mongolia: Asia; Pakistan: Asia;
    Iraq: Asia; Brazil: South America; Chile: South America; Peru: South America; Argentina: South America;
    Bolivia: South America; Colombia: South America; Uruguay: South America; Canada: North America;
    Mexico: North America"""
)
OPPOSITES = _pairs(
    """hot: cold; up: down; open: closed; early: late; full: empty; heavy: light; fast: slow; wet: dry; strong: weak;
    rich: poor; young: old; left: right; day: night; loud: quiet; happy: sad; true: false; thick: thin; wide: narrow;
    inside: outside; first: last; above: below; clean: dirty; deep: shallow; sharp: blunt; awake: asleep; push: pull;
    near: far; win: lose; begin: end; more: less; always: never; love: hate; buy: sell; front: back; alive: dead"""
)
SOUNDS = _pairs(
    """dog: bark; cat: meow; cow: moo; sheep: baa; duck: quack; pig: oink; lion: roar; snake: hiss; horse: neigh;
    rooster: crow; bee: buzz; owl: hoot; wolf: howl; frog: croak; mouse: squeak; elephant: trumpet; donkey: bray;
    turkey: gobble; hen: cluck; pigeon: coo; crow: caw; small chick: cheep; tiger: roar; toad: croak"""
)
YOUNG = _pairs(
    """dog: puppy; cat: kitten; cow: calf; sheep: lamb; horse: foal; hen: chick; duck: duckling; goose: gosling;
    pig: piglet; goat: kid; deer: fawn; bear: cub; lion: cub; kangaroo: joey; swan: cygnet; frog: tadpole; seal: pup;
    elephant: calf; whale: calf; wolf: pup; tiger: cub; owl: owlet; eagle: eaglet; butterfly: caterpillar"""
)
COLOURS = _pairs(
    """fresh snow: white; a ripe banana: yellow; grass: green; coal: black; a clear daytime sky: blue; blood:
    red; a ripe tomato: red; milk: white; a school bus in the USA: yellow; an emerald: green; a ruby: red; a
    sapphire: blue; a polar bear: white; spinach: green; a lemon: yellow; a flamingo: pink; a carrot: orange;
    a raven: black; chocolate: brown; an elephant: grey; salt: white; a fire engine: red; cotton: white; a
    swan: white; a pumpkin: orange; broccoli: green; a ripe strawberry: red; a sunflower petal: yellow"""
)
ELEMENTS = _pairs(
    """hydrogen: H; helium: He; lithium: Li; carbon: C; nitrogen: N; oxygen: O; fluorine: F; neon: Ne; sodium: Na;
    magnesium: Mg; aluminium: Al; silicon: Si; phosphorus: P; sulfur: S; chlorine: Cl; argon: Ar; potassium: K;
    calcium: Ca; titanium: Ti; iron: Fe; cobalt: Co; nickel: Ni; copper: Cu; zinc: Zn; silver: Ag; tin: Sn; iodine: I;
    platinum: Pt; gold: Au; mercury: Hg; lead: Pb; uranium: U; boron: B; manganese: Mn; barium: Ba; radium: Ra"""
)
PLURALS = _pairs(
    """child: children; mouse: mice; foot: feet; tooth: teeth; man: men; woman: women; goose: geese; box: boxes;
    city: cities; baby: babies; leaf: leaves; knife: knives; wolf: wolves; bus: buses; dish: dishes; church: churches;
    story: stories; potato: potatoes; hero: heroes; cat: cats; book: books; toy: toys; glass: glasses; wife: wives;
    party: parties; fox: foxes; brush: brushes; half: halves; country: countries; key: keys; tomato: tomatoes;
    ox: oxen; loaf: loaves; lady: ladies; watch: watches; shelf: shelves; penny: pennies; thief: thieves"""
)
PAST = _pairs(
    """go: went; see: saw; eat: ate; take: took; write: wrote; run: ran; come: came; give: gave; find: found;
    think: thought; buy: bought; bring: brought; teach: taught; catch: caught; drink: drank; swim: swam; sing: sang;
    begin: began; fly: flew; know: knew; grow: grew; break: broke; speak: spoke; choose: chose; drive: drove;
    ride: rode; sleep: slept; keep: kept; leave: left; make: made; walk: walked; play: played; stop: stopped;
    try: tried; carry: carried; jump: jumped; build: built; send: sent; hold: held; sell: sold"""
)
COMPARATIVES = _pairs(
    """big: bigger; small: smaller; happy: happier; good: better; bad: worse; hot: hotter; easy: easier; thin: thinner;
    long: longer; heavy: heavier; nice: nicer; large: larger; busy: busier; cold: colder; tall: taller; wet: wetter;
    fast: faster; noisy: noisier; strong: stronger; brave: braver; funny: funnier; short: shorter; rich: richer;
    late: later; early: earlier; warm: warmer; wide: wider; dirty: dirtier; young: younger; sad: sadder; safe: safer"""
)

table(
    "capital",
    CAPITALS,
    "What is the capital of {x}?",
    "Name the capital city of {x}.",
    "Which city is the capital of {x}? Give only its name.",
    also={"Colombia": ("Bogotá",), "Brazil": ("Brasília",), "Ukraine": ("Kiev",)},
)
table(
    "country_of_capital",
    {city: country for country, city in CAPITALS.items()},
    "{x} is the capital of which country?",
    "Which country has the capital {x}?",
    "Name the country whose capital city is {x}.",
    also={"Ankara": ("Türkiye",)},
)
table(
    "continent",
    CONTINENTS,
    "On which continent is {x}?",
    "Name the continent where {x} lies.",
    "Which continent does {x} belong to?",
)
table(
    "opposite",
    OPPOSITES,
    'What is the opposite of "{x}"? Answer with one word.',
    'Give an antonym of the word "{x}".',
    'Write one word that means the contrary of "{x}".',
    also={
        "open": ("shut", "close"),
        "awake": ("sleeping",),
        "true": ("untrue",),
        "clean": ("unclean",),
        "sharp": ("dull",),
        "loud": ("soft", "silent"),
        "happy": ("unhappy",),
        "begin": ("finish", "stop"),
        "front": ("rear",),
        "above": ("under", "beneath"),
        "more": ("fewer",),
    },
)
table(
    "animal_sound",
    SOUNDS,
    "Which verb names the typical sound of this animal: {x}?",
    "What sound does this animal typically make: {x}? Answer with one word.",
    "Animal: {x}. Which verb describes its call?",
    also={
        "dog": ("woof",),
        "cat": ("purr", "mew"),
        "sheep": ("bleat",),
        "pig": ("grunt",),
        "lion": ("growl",),
        "tiger": ("growl",),
        "horse": ("whinny",),
        "frog": ("ribbit",),
        "small chick": ("peep", "chirp"),
        "hen": ("cackle",),
        "mouse": ("squeal",),
    },
)
table(
    "animal_young",
    YOUNG,
    "What is the young of this animal called: {x}?",
    "Name the word for the young of the animal {x}.",
    "How do we call the offspring of the animal {x}? One word.",
    also={"hen": ("chicken",), "seal": ("calf",), "wolf": ("cub",), "horse": ("colt", "filly")},
)
table(
    "colour_of",
    COLOURS,
    "What colour is {x}? Answer with one word.",
    "Name the typical colour of {x}.",
    "In one word, which colour does {x} usually have?",
    also={"an elephant": ("gray",)},
)
table(
    "chemical_symbol",
    ELEMENTS,
    "What is the chemical symbol of {x}?",
    "Write the symbol for the element {x}.",
    "Which letters stand for {x} in the periodic table?",
)
table(
    "element",
    {symbol: element for element, symbol in ELEMENTS.items()},
    "Which chemical element has the symbol {x}?",
    "Name the element written {x} in the periodic table.",
    "In chemistry, {x} stands for which element?",
    also={"Al": ("aluminum",), "S": ("sulphur",)},
)
table(
    "plural",
    PLURALS,
    'What is the plural of "{x}"?',
    'Write the word "{x}" in the plural.',
    "One {x}, two ... Complete with one word.",
)
table(
    "past_tense",
    PAST,
    'What is the simple past of the verb "{x}"?',
    'Write "{x}" in the past tense, one word.',
    "Today I {x}, yesterday I ... Complete with one word.",
)
table(
    "comparative",
    COMPARATIVES,
    'What is the comparative form of "{x}"?',
    "Give the comparative of the adjective {x}.",
    "Complete with one word: {x}, ..., as in a comparison of two things.",
)
