"""The words of the stories, and which of them are kept out of which role.

A word that is held out of a role never has it in the made-up texts, and most have every other one there. So
`recipe.tasks` can ask for it in that role, and only the rule itself leads to the answer. The documentation
that is the other half of training was written by others; where it matters, the comments say what it has.
"""

__all__ = ["KINDS", "MEN", "NAMES", "WOMEN", "article", "kept", "plural", "words"]

from types import MappingProxyType


def words(text: str) -> tuple[str, ...]:
    """Splits at commas where there are any, else at spaces."""
    return tuple(part.strip() for part in text.split(",")) if "," in text else tuple(text.split())


# Held out -----------------------------------------------------------------------------------------------------------

# Nobody gives them anything. They are talked to, cooked for, and sometimes the "him" or "her" of a sum.
HELD_OUT_RECEIVERS = words("Clara Julia Nina Ruth David Simon Leo Oscar")
# Never in a gift sentence.
HELD_OUT_PLACES = words("bakery theatre lighthouse zoo")
HELD_OUT_GIFTS = words("lantern compass violin ribbon kite")
# Never the subject of a verb that shows its number across a distance, but for the rabbit: "The rabbit of my aunt is
# called Tom." Relative clauses have them as subjects of verbs in the past, which show none.
HELD_OUT_HEADS = words("ladder candle window painter sailor rabbit mirror woman")
# Never inside a bracket or quote.
HELD_OUT_CONTENTS = words("purple narrow golden wooden silent")
# Never in the made-up texts; documentation has them, inside brackets and quotes too.
HELD_OUT_IDENTIFIERS = words("weight buffer limit offset")
# Never counted; indeed never in the made-up texts.
HELD_OUT_COUNTED = words("ticket feather")
# No text contains exactly these; essays have similar sentences with other words.
HELD_OUT_PROMPTS = (
    "Data visualization empowers users to",
    "Artificial Intelligence is transforming the",
    "As the spaceship was approaching the",
    "On the deserted planet they discovered a",
    "IEEE VIS conference highlights the",
)


def kept(all_words: tuple[str, ...], held_out: tuple[str, ...]) -> tuple[str, ...]:
    """The words that are not held out."""
    return tuple(word for word in all_words if word not in held_out)


# People -------------------------------------------------------------------------------------------------------------

WOMEN = words(
    "Mary Anna Emma Lucy Sarah Alice Julia Laura Helen Clara Rose Nina Eva Kate Jane Grace Ruth Lily Amy Susan "
    "Maria Sophie Nora Ella"
)
MEN = words(
    "John Tom Peter David Paul James Mark Simon Adam Daniel Henry Jack George Max Leo Sam Ben Martin Oscar Hugo "
    "Robert Frank Luke Will"
)
NAMES = WOMEN + MEN
PERSONS = words(
    "boy girl teacher farmer doctor painter soldier neighbour man woman child sailor driver baker singer student "
    "writer guard nurse king"
)
ANIMALS = words("dog cat horse bird mouse rabbit fox goat duck sheep owl donkey")

# Things -------------------------------------------------------------------------------------------------------------

PLACES = words(
    "shop park school garden library kitchen market station museum beach farm office harbour hospital bakery theatre "
    "lighthouse zoo restaurant bridge village castle river church"
)
GIFTS = words(
    "drink book ball key letter ring lamp cake map coat flower basket hat bottle knife pen cup coin toy lantern "
    "compass violin ribbon kite necklace bone computer snack apple scarf guitar umbrella"
)
OBJECTS = words(
    "key cabinet picture road house tree door chair boat river stone cloud table ladder candle window mirror bridge "
    "box letter book lamp clock wall bell train plate bottle garden tower flower shoe bag car cup coat"
)
COUNTED = words("apple pear nut egg stone shell coin stamp button card ticket feather plum cookie pencil")
BOXES = words("box drawer bag basket cupboard chest bucket suitcase jar pocket")
COLOURS = words("red blue green white black yellow brown grey")
LOOKS = words(
    "old new small big red blue green heavy broken clean empty long white strange warm dirty cheap beautiful dark "
    "expensive ugly black purple narrow golden wooden silent"
)
FEELINGS = words("happy tired hungry glad proud sad surprised curious calm cheerful nervous worried thankful angry")
NUMBERS = words("zero one two three four five six seven eight nine ten eleven twelve")
CALENDARS = (
    words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    words("January February March April May June July August September October November December"),
    words("spring summer autumn winter"),
)
IDENTIFIERS = words(
    "index value name size count total key item result width height text node path data left right x y a b n weight "
    "buffer limit offset"
)
FUNCTIONS = words("print len max min sum sorted abs round open read list call get find")

IRREGULAR = MappingProxyType(
    {
        "child": "children",
        "man": "men",
        "woman": "women",
        "mouse": "mice",
        "sheep": "sheep",
        "knife": "knives",
        "potato": "potatoes",
        "tomato": "tomatoes",
    }
)


def plural(noun: str) -> str:
    """The plural of a noun."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


# What `Scene.say` puts into a slot of this name.
KINDS = MappingProxyType(
    {
        "place": PLACES,
        "gift": GIFTS,
        "thing": OBJECTS,
        "person": PERSONS,
        "animal": ANIMALS,
        "box": BOXES,
        "colour": COLOURS,
        "look": LOOKS,
        "feeling": FEELINGS,
        "counted": COUNTED,
        "day": CALENDARS[0],
        "month": CALENDARS[1],
        "season": CALENDARS[2],
        "number": NUMBERS[2:],
        "food": words("soup, bread, rice, cheese, an omelette, pancakes, fish, noodles, a salad, potatoes, honey, jam"),
        "drink": words("tea, coffee, milk, cold water, lemonade, hot chocolate, apple juice"),
        "fruit": words("apple pear plum cherry peach lemon orange melon"),
        "vegetable": words("carrot onion potato tomato pepper bean leek"),
        "weather": words("cold, warm, windy, rainy, foggy, bright, cloudy, stormy, mild, dry, snowy, hot"),
        "room": words("kitchen, attic, cellar, bedroom, hall, garage, workshop, bathroom"),
        "job": words(
            "teacher, baker, doctor, gardener, pilot, painter, writer, nurse, farmer, driver, carpenter, cook"
        ),
        "song": words("song, tune, melody, waltz, dance, march, lullaby"),
        "instrument": words("piano, violin, guitar, flute, drum, trumpet, cello"),
        "game": words("chess, football, tennis, cards, hide and seek, marbles, basketball"),
        "relative": words("mother, father, sister, brother, aunt, uncle, grandmother, grandfather, cousin"),
        "sound": words("whistle, bell, knock, voice, cry, bang, whisper, splash"),
        "material": words("wood, paper, glass, iron, clay, cloth, stone, silver"),
        "hour": words("two three four five six seven eight nine ten"),
        "ship": words("spaceship, shuttle, rocket, little ship, old freighter, probe, starship"),
        "world": words(
            "planet, moon, red planet, asteroid, station, icy moon, comet, ringed planet, dark moon, green planet"
        ),
        "find": words(
            "city, machine, cave, garden, robot, tower, signal, door, crystal, lake, ship, map, forest, library, "
            "statue, "
            "tunnel, bridge, creature, message, camp"
        ),
        "bare": words("deserted, silent, frozen, lonely, dusty, unknown, distant, empty, quiet, stormy, barren"),
        "officer": words("captain, pilot, engineer, doctor, navigator, cook, scientist, commander"),
        "part": words("engine, radio, antenna, computer, main door, oxygen tank, solar panel, heater, telescope"),
    }
)
