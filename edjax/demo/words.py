"""Plain English words that the families draw from; no word belongs to two of the kinds."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NOUNS = words(
    """apple bridge button candle carpet castle cheese circle coffee corner cotton dinner doctor dragon engine
    farmer finger flower forest garden ginger guitar hammer harbor helmet island jacket jungle kettle kitten
    ladder lantern lemon letter market mirror monkey mountain needle ocean orange oven paper parrot pencil
    pepper picture pillow planet pocket potato rabbit ribbon river rocket saddle salad school shadow silver
    singer spider spoon summer sunset table teacher thunder ticket tiger tomato tower train turtle valley violin
    wagon water whistle window winter wizard yellow basket bottle camera cloud drum eagle fence glove honey kite
    lamp museum piano queen road sand tree umbrella village wheel zebra bread chair dance field grass house
    juice knife night onion plate stone tent uncle"""
)

NAMES = words(
    """Ana Ben Carla David Emma Felix Grace Hugo Ivy Jack Karim Lena Maya Noah Olga Paul Rosa Sam Tina Victor Wendy
    Yusuf Zoe Amir Clara Dina Erik Fatima Leo Nina"""
)

KINDS = {
    "animal": words("horse sheep giraffe dolphin penguin squirrel zebra wolf goat donkey hamster otter"),
    "fruit": words("banana grape mango pear papaya fig pineapple strawberry watermelon raspberry blueberry quince"),
    "colour": words("red blue green purple pink brown black white grey turquoise beige crimson"),
    "tool": words("hammer saw drill wrench screwdriver shovel chisel pliers rake axe"),
    "garment": words("shirt sweater trousers skirt coat scarf sock hat blouse jeans"),
    "vehicle": words("car truck bicycle airplane helicopter bus tractor motorcycle tram van"),
    "instrument": words("piano violin flute trumpet guitar cello clarinet harp oboe banjo"),
    "body part": words("elbow knee shoulder ankle nose ear wrist chin thumb hip"),
    "profession": words("baker nurse lawyer plumber teacher carpenter dentist pilot surgeon butcher"),
    "furniture": words("sofa bed desk wardrobe bookcase stool armchair cupboard bench dresser"),
}

RHYMES = (
    ("cat", "hat", "bat", "mat", "rat"),
    ("light", "night", "kite", "bite", "white"),
    ("cake", "lake", "snake", "bake", "rake"),
    ("bell", "shell", "well", "smell", "tell"),
    ("moon", "spoon", "tune", "June", "soon"),
    ("ring", "king", "sing", "wing", "spring"),
    ("house", "mouse", "grouse", "spouse"),
    ("tree", "bee", "sea", "key", "knee"),
    ("star", "car", "jar", "far", "bar"),
    ("ball", "wall", "tall", "fall", "small"),
    ("boat", "goat", "coat", "note", "vote"),
    ("nose", "rose", "toes", "hose"),
    ("duck", "truck", "luck", "stuck", "buck"),
    ("pen", "ten", "hen", "men", "when"),
    ("fox", "box", "socks", "rocks", "clocks"),
    ("sand", "hand", "land", "band", "stand"),
    ("rain", "train", "plane", "chain", "brain"),
    ("chair", "bear", "hair", "pear", "square"),
    ("flower", "tower", "shower", "power", "hour"),
    ("book", "hook", "cook", "look", "brook"),
)
