"""Name what a classifier of ImageNet-1k knows: everyday names, synonyms as one, and kinds that hold several classes.

Knows: ImageNet's classes by the first of their names in WordNet, as timm lists them. A model that is sure of a cat may
divide its confidence among "tabby", "tiger cat" and "Egyptian cat"; what counts is their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# The first name in WordNet -> an everyday name, or one that tells it from another class. Equal names are one tag.
EVERYDAY = dict(
    pair.split(" = ")
    for pair in (
        "Cardigan = Cardigan corgi, Pembroke = Pembroke corgi, Boston bull = Boston terrier, "
        "boxer = boxer dog, tabby = tabby cat, cock = rooster, sorrel = horse, hog = pig, "
        "ice bear = polar bear, ram = sheep, lesser panda = red panda, American black bear = black bear, "
        "great grey owl = owl, drake = duck, kite = bird of prey, jay = jay bird, robin = robin bird, "
        "admiral = admiral butterfly, tusker = elephant, monarch = monarch butterfly, "
        "ringlet = ringlet butterfly, lycaenid = lycaenid butterfly, notebook = laptop, "
        "cellular telephone = cell phone, computer keyboard = keyboard, television = tv, screen = monitor, "
        "mouse = computer mouse, hand-held computer = handheld computer, cash machine = ATM, "
        "sunglass = sunglasses, maillot = swimsuit, projectile = missile, tub = bathtub, ear = corn, "
        "ashcan = trash can, hand blower = hair dryer, studio couch = couch, four-poster = bed, "
        "rule = ruler, pot = flower pot, coffeepot = coffee pot, swab = mop, slot = slot machine, "
        "brass = plaque, plane = carpenter's plane, upright = upright piano, grand piano = piano, "
        "sax = saxophone, file = cabinet, cornet = trumpet, toilet seat = toilet, "
        "toilet tissue = toilet paper, jean = jeans, pajama = pajamas, beach wagon = station wagon, "
        "cab = taxi, racer = race car, streetcar = tram, golfcart = golf cart, "
        "bicycle-built-for-two = tandem bicycle, airliner = airplane, liner = ocean liner, "
        "pirate = pirate ship, wreck = shipwreck, wing = airplane wing, beacon = lighthouse, alp = mountain, "
        "jinrikisha = rickshaw, hotdog = hot dog, ice lolly = popsicle, Granny Smith = apple, "
        "hip = rose hip, buckeye = horse chestnut, head cabbage = cabbage, French loaf = bread, "
        "groom = bridegroom, ballplayer = baseball player, nipple = pacifier, barrow = wheelbarrow, "
        "reel = fishing reel, loupe = magnifying glass, picket fence = fence, web site = web page, "
        "pickup = pickup truck, scale = weighing scale, washer = washing machine, vacuum = vacuum cleaner, "
        "bannister = banister, ping-pong ball = table tennis ball"
    ).split(", ")
)

# Kind -> its classes by their first name in WordNet; ".." takes all from one to another in ImageNet's order.
KINDS = {
    "fish": "tench..goldfish, barracouta..puffer",
    "shark": "great white shark..hammerhead",
    "bird": "cock..great grey owl, black grouse..black swan, white stork..albatross",
    "frog": "bullfrog..tailed frog",
    "turtle": "loggerhead..box turtle",
    "lizard": "banded gecko..Komodo dragon",
    "snake": "thunder snake..sidewinder",
    "spider": "black and gold garden spider..wolf spider",
    "crab": "Dungeness crab..king crab, hermit crab",
    "lobster": "American lobster..crayfish",
    "whale": "grey whale..killer whale",
    "dog": "Chihuahua..Mexican hairless",
    "wolf": "timber wolf..coyote",
    "fox": "red fox..grey fox",
    "cat": "tabby..Egyptian cat",
    "bear": "brown bear..sloth bear",
    "insect": "tiger beetle..lycaenid",
    "butterfly": "admiral..lycaenid",
    "beetle": "tiger beetle..weevil",
    "rabbit": "wood rabbit..Angora",
    "pig": "hog..warthog",
    "sheep": "ram..bighorn",
    "cow": "ox..bison",
    "antelope": "hartebeest..gazelle",
    "ape": "orangutan..siamang",
    "monkey": "guenon..squirrel monkey",
    "elephant": "tusker, Indian elephant, African elephant",
    "mushroom": "mushroom, coral fungus..bolete",
    "flower": "daisy..yellow lady's slipper",
    "car": "beach wagon, cab, convertible, jeep, limousine, minivan, Model T, racer, sports car",
    "truck": "fire engine, garbage truck, moving van, pickup, tow truck, trailer truck",
    "bus": "minibus, school bus, trolleybus",
    "train": "bullet train, electric locomotive, freight car, passenger car, steam locomotive, streetcar",
    "airplane": "airliner, warplane, wing",
    "boat": (
        "canoe, catamaran, fireboat, gondola, lifeboat, speedboat, trimaran, yawl, schooner, aircraft carrier, "
        "container ship, liner, pirate"
    ),
    "bicycle": "bicycle-built-for-two, mountain bike",
    "scooter": "moped, motor scooter",
    "ball": (
        "baseball, basketball, croquet ball, golf ball, ping-pong ball, rugby ball, soccer ball, tennis ball, "
        "volleyball"
    ),
    "building": (
        "barn, beacon, bell cote, boathouse, castle, church, cinema, cliff dwelling, dome, greenhouse, library, "
        "mobile home, monastery, mosque, palace, planetarium, prison, stupa, thatch, tile roof, triumphal arch, "
        "water tower, yurt"
    ),
    "shop": (
        "bakery, barbershop, bookshop, butcher shop, confectionery, grocery store, shoe shop, tobacco shop, toyshop"
    ),
    "bridge": "steel arch bridge, suspension bridge, viaduct",
    "fence": "chainlink fence, picket fence, worm fence",
    "mountain": "alp, volcano",
    "coast": "promontory, sandbar, seashore",
    "fruit": "Granny Smith..pomegranate",
    "vegetable": "head cabbage..cardoon",
    "food": "guacamole..mashed potato, carbonara..burrito",
    "cup": "coffee mug, cup",
    "bottle": "beer bottle, pill bottle, pop bottle, water bottle, wine bottle",
    "chair": "barber chair, folding chair, rocking chair, throne",
    "clock": "analog clock, digital clock, wall clock",
    "lamp": "table lamp, lampshade",
    "computer": "desktop computer, hand-held computer, laptop, notebook",
    "puzzle": "crossword puzzle, jigsaw puzzle",
    "screen": "monitor, screen, television",
    "keyboard": "computer keyboard, typewriter keyboard, space bar",
    "telephone": "cellular telephone, dial telephone, pay-phone",
    "camera": "Polaroid camera, reflex camera",
    "musical instrument": (
        "accordion, acoustic guitar, banjo, bassoon, cello, cornet, drum, electric guitar, flute, French horn, "
        "gong, grand piano, harmonica, harp, maraca, marimba, oboe, ocarina, organ, panpipe, sax, steel drum, "
        "trombone, upright, violin"
    ),
    "guitar": "acoustic guitar, electric guitar",
    "piano": "grand piano, upright",
    "gun": "assault rifle, revolver, rifle",
    "hat": "bearskin, bonnet, cowboy hat, sombrero",
    "helmet": "crash helmet, football helmet, pickelhaube",
    "shoe": "clog, cowboy boot, Loafer, running shoe, sandal",
    "tie": "bolo tie, bow tie, Windsor tie",
    "swimsuit": "maillot, bikini",
    "bag": "backpack, mailbag, plastic bag, purse",
}


# Kinds of which people name what is in them, a lemon; of any other they name the kind, a ball.
BROAD = frozenset("insect, musical instrument, building, shop, fruit, vegetable, food".split(", "))

# Tags with the names of COCO's 80 things, which detectors find with better boxes. Those of their classes go with them.
DETECTED = (
    "airplane, apple, backpack, banana, bear, bed, bicycle, bird, boat, bottle, broccoli, bus, car, cat, cell phone, "
    "chair, clock, computer mouse, couch, cow, cup, dining table, dog, elephant, hair dryer, horse, hot dog, keyboard, "
    "laptop, microwave, orange, park bench, parking meter, pizza, refrigerator, remote control, sheep, ski, teddy, "
    "telephone, tie, toaster, toilet, traffic light, train, truck, tv, umbrella, vase, zebra"
).split(", ")


def detected_tags(tags: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Return the tags that say what a detector of COCO's things says, or a kind of it ("collie")."""
    whole = [set(tags[name]) for name in DETECTED]
    return frozenset(tag for tag, classes in tags.items() if any(set(classes) <= kind for kind in whole))


def tag_classes(first_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return each tag with the numbers of its classes: kinds first, then the classes' own names.

    Args:
        first_names: of the classes, in ImageNet's order.

    Raises:
        ValueError: a class that `KINDS` or `EVERYDAY` names is not among them.
    """
    where: dict[str, list[int]] = {}
    for number, name in enumerate(first_names):
        where.setdefault(name, []).append(number)
    tags = {kind: _members(listed, where) for kind, listed in KINDS.items()}
    unknown = EVERYDAY.keys() - where.keys()
    if unknown:
        raise ValueError(f"no class is called {', '.join(sorted(unknown))}")
    for name, numbers in where.items():
        tags.setdefault(EVERYDAY.get(name, name), set()).update(numbers)
    return {tag: tuple(sorted(numbers)) for tag, numbers in tags.items()}


def _members(listed: str, where: dict[str, list[int]]) -> set[int]:
    found: set[int] = set()
    for part in listed.split(", "):
        first, _, last = part.partition("..")
        if first not in where or (last or first) not in where:
            raise ValueError(f"no class is called '{part}'")
        found.update(range(where[first][0], where[last][-1] + 1) if last else where[first])
    return found
