"""What synthetic products are called: departments, things, praises, brands, and which of them each product has.

The words only. How they become titles and sentences is the subject of `metadata_lines.py` and `sentences.py`; who buys
what, of `world.py` and `purchases.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

# department: (things sold in it, what they are praised for)
DEPARTMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Kitchen & Dining": (
        ("Skillet", "Saucepan", "Mixing Bowl", "Whisk", "Cutting Board", "Ladle", "Baking Tray", "Colander"),
        ("Non-Stick", "Dishwasher Safe", "Cast Iron", "Heat Resistant", "Even Heating", "Stainless Steel"),
    ),
    "Patio, Lawn & Garden": (
        ("Trowel", "Watering Can", "Plant Pot", "Hose Nozzle", "Pruning Shears", "Seed Tray", "Rake", "Trellis"),
        ("Rust Proof", "Frost Resistant", "Galvanized", "Deep Root", "Leak Free", "Weatherproof"),
    ),
    "Toys & Games": (
        (
            "Puzzle",
            "Board Game",
            "Building Blocks",
            "Plush Bear",
            "Toy Train",
            "Card Game",
            "Doll House",
            "Spinning Top",
        ),
        ("Ages 3 and Up", "Wooden", "Two Player", "Glow in the Dark", "Educational", "Washable"),
    ),
    "Sports & Outdoors": (
        ("Yoga Mat", "Jump Rope", "Dumbbell", "Tent", "Sleeping Bag", "Camping Stove", "Bike Pump", "Resistance Band"),
        ("Ultralight", "Non-Slip", "Sweat Proof", "Quick Dry", "Foldable", "Four Season"),
    ),
    "Office Products": (
        ("Stapler", "Notebook", "Gel Pen", "Desk Lamp", "File Folder", "Tape Dispenser", "Ink Cartridge", "Whiteboard"),
        ("Acid Free", "Refillable", "Letter Size", "Smudge Proof", "Jam Free", "College Ruled"),
    ),
    "Beauty & Personal Care": (
        ("Face Cream", "Shampoo", "Lip Balm", "Hair Brush", "Nail Polish", "Body Lotion", "Eye Serum", "Bath Salts"),
        ("Fragrance Free", "Moisturizing", "With Aloe", "Long Lasting", "Paraben Free", "With Vitamin E"),
    ),
    "Pet Supplies": (
        ("Dog Leash", "Cat Tree", "Chew Toy", "Pet Bed", "Litter Scoop", "Bird Feeder", "Aquarium Filter", "Dog Bowl"),
        ("Chew Proof", "Odor Control", "Reflective", "Orthopedic", "Grain Free", "Machine Washable"),
    ),
    "Musical Instruments": (
        ("Guitar Strings", "Capo", "Drum Sticks", "Violin Bow", "Microphone Stand", "Ukulele", "Piano Stool", "Tuner"),
        ("Nickel Wound", "Clip On", "Hickory", "Low Noise", "Concert Pitch", "Adjustable"),
    ),
    "Electronics": (
        (
            "Headphones",
            "Charging Cable",
            "Bluetooth Speaker",
            "Webcam",
            "Keyboard",
            "Power Bank",
            "Memory Card",
            "Mouse",
        ),
        ("Noise Cancelling", "Fast Charging", "Wireless", "Backlit", "Full HD", "Braided"),
    ),
    "Clothing, Shoes & Jewelry": (
        (
            "Rain Jacket",
            "Wool Socks",
            "Running Shoes",
            "Leather Belt",
            "Silver Earrings",
            "Scarf",
            "Linen Shirt",
            "Hat",
        ),
        ("Water Repellent", "Slim Fit", "Hypoallergenic", "Breathable", "Hand Stitched", "Stretch"),
    ),
    "Tools & Home Improvement": (
        ("Screwdriver", "Claw Hammer", "Drill Bit", "Tape Measure", "Wrench", "Work Light", "Tool Box", "Sandpaper"),
        ("Magnetic", "Carbide Tipped", "Anti Vibration", "Heavy Duty", "Cordless", "Chrome Vanadium"),
    ),
    "Grocery & Gourmet Food": (
        ("Green Tea", "Dark Chocolate", "Olive Oil", "Granola", "Coffee Beans", "Honey", "Pasta", "Hot Sauce"),
        ("Organic", "Fair Trade", "Gluten Free", "Single Origin", "Cold Pressed", "Unsweetened"),
    ),
    "Movies & TV": (
        (
            "Western",
            "Detective Series",
            "Space Opera",
            "Silent Comedy",
            "Nature Film",
            "Courtroom Drama",
            "Musical",
            "Noir",
        ),
        ("Remastered", "Widescreen", "Collector's Edition", "Subtitled", "Director's Cut", "Box Set"),
    ),
    "CDs & Vinyl": (
        (
            "String Quartets",
            "Blues Album",
            "Jazz Trio",
            "Opera Highlights",
            "Folk Songs",
            "Piano Sonatas",
            "Big Band",
            "Choir",
        ),
        ("180 Gram Vinyl", "Live", "Mono Edition", "Digipak", "Import", "Anniversary Edition"),
    ),
    "Baby": (
        ("Stroller", "Teether", "Swaddle", "Bottle Warmer", "Crib Sheet", "Diaper Bag", "High Chair", "Night Light"),
        ("BPA Free", "Organic Cotton", "One Hand Fold", "Soft Touch", "Easy Clean", "Newborn"),
    ),
    "Automotive": (
        (
            "Wiper Blade",
            "Floor Mat",
            "Air Filter",
            "Car Wax",
            "Seat Cover",
            "Jump Starter",
            "Phone Mount",
            "Tire Gauge",
        ),
        ("All Weather", "Streak Free", "Universal Fit", "Scratch Resistant", "Quick Release", "High Flow"),
    ),
}
RANGES = (
    "Classic",
    "Travel",
    "Professional",
    "Kids",
    "Vintage",
    "Compact",
    "Premium",
    "Budget",
    "Artisan",
    "Outdoor",
    "Studio",
    "Winter",
)
BRANDS = (
    "Alder & Co",
    "Brightwell",
    "Corvane",
    "Dunmore",
    "Elmsfield",
    "Fenwick",
    "Greyling",
    "Holloway",
    "Ivermont",
    "Juniper Lane",
)
COLOURS = ("Black", "Blue", "Green", "Red", "White", "Grey", "Yellow", "Natural")
GIVEN_NAMES = (
    *("Amina", "Andrew", "Beth", "Bruno", "Carla", "Chen", "Dana", "Derek", "Dee", "Elif", "Emil", "Fatima", "Fred"),
    *("Grace", "Hana", "Hugo", "Ines", "Ivan", "Jamal", "Jo\u00e3o", "Joyce", "Kofi", "Lena", "Liam", "Luz", "Mads"),
    *("Maria", "Mei", "Nadia", "Noor", "Olga", "Omar", "Pat", "Priya", "Ravi", "Ren\u00e9e", "Rosa", "Sam", "Sofia"),
    *("Sue", "Tariq", "Tom", "Uma", "Vera", "Wanda", "Will", "Yara", "Yuki", "Zainab", "Zo\u00eb"),
)
SURNAMES = (
    *(
        "Abbott",
        "Ahmed",
        "Baker",
        "Bianchi",
        "Brandt",
        "Carter",
        "Castro",
        "Cohen",
        "Dahl",
        "Diaz",
        "Dubois",
        "Eriksen",
    ),
    *("Fischer", "Fraser", "Garcia", "Haddad", "Hughes", "Ito", "Jensen", "Kaya", "Keller", "Khan", "Kowalski", "Lang"),
    *(
        "Larsen",
        "Lopez",
        "Maier",
        "Mbeki",
        "Moreau",
        "Murphy",
        "Nagy",
        "Nakamura",
        "Novak",
        "O'Brien",
        "Okafor",
        "Olsen",
    ),
    *("Park", "Patel", "Petrov", "Quinn", "Ramos", "Reyes", "Rossi", "Sato", "Schmidt", "Silva", "Singh", "Suzuki"),
    *("Tanaka", "Taylor", "Torres", "Usman", "Varga", "Vogel", "Walsh", "Weber", "Wong", "Yilmaz", "Young", "Zhang"),
)
NICKNAMES = ("bookworm42", "Grandma of 5", 'Jim "Jimbo" K.', "music & more", "Kindle Customer", "shopper_77", "DIY dad")
LARGEST_NUMBER_OF_CATEGORIES = len(DEPARTMENTS) * len(RANGES)
BRANDS_A_CATEGORY = 3

_THINGS = [thing for things, _ in DEPARTMENTS.values() for thing in things]
_PRAISES = [praise for _, praises in DEPARTMENTS.values() for praise in praises]
VOCABULARIES: dict[str, list[str]] = {
    "thing": _THINGS,
    "praise": _PRAISES,
    "range": list(RANGES),
    "department": list(DEPARTMENTS),
    "colour": list(COLOURS),
    "brand": list(BRANDS),
}


@dataclass(frozen=True)
class Wording:
    """The words of I products.

    Attributes:
        ids: word -> which of VOCABULARIES[word] each product has, [I]; and "number": a model number, 100 to 999.
    """

    ids: dict[str, np.ndarray]

    def words(self, kind: str) -> pl.Series:
        """The products' words of one kind, str [I]."""
        return pl.Series(kind, VOCABULARIES[kind]).gather(self.ids[kind])


def word_products(rng: np.random.Generator, category: np.ndarray) -> Wording:
    """Name every product: its category, [I] (below LARGEST_NUMBER_OF_CATEGORIES), gives words, chance picks."""
    department, products = category % len(DEPARTMENTS), len(category)
    things, praises = (len(words) // len(DEPARTMENTS) for words in (_THINGS, _PRAISES))
    return Wording(
        {
            "department": department,
            "range": category // len(DEPARTMENTS),
            "thing": department * things + rng.integers(0, things, products),
            "praise": department * praises + rng.integers(0, praises, products),
            "colour": rng.integers(0, len(COLOURS), products),
            "brand": (category * BRANDS_A_CATEGORY + rng.integers(0, BRANDS_A_CATEGORY, products)) % len(BRANDS),
            "number": rng.integers(100, 1000, products),
        }
    )


def category_name(category: int) -> tuple[str, str]:
    """Department and range of a category, as its products' metadata has them."""
    return list(DEPARTMENTS)[category % len(DEPARTMENTS)], RANGES[category // len(DEPARTMENTS)]
