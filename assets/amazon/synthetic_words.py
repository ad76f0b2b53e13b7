"""What synthetic products are called and what their reviews say: the words, and how they are put together.

Every product name and sentence comes from its category's words, so that a language model can learn the categories
from the text alone. Who buys what is `synthetic.py`'s subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
NAMES = (
    "Amazon Customer",
    "J. Carter",
    "Maria L.",
    "bookworm42",
    "Priya",
    "Tom & Sue",
    "K. Olsen",
    "Dee",
    "R. Haddad",
    "Yuki",
)
LARGEST_NUMBER_OF_CATEGORIES = len(DEPARTMENTS) * len(RANGES)

_SUMMARIES = {
    1: ("One Star", "Broke at once", "Do not buy this {thing}"),
    2: ("Two Stars", "Not as described", "Disappointing {thing}"),
    3: ("Three Stars", "It's okay", "A decent {thing}"),
    4: ("Four Stars", "Good {thing}", "Would buy again"),
    5: ("Five Stars", "Love this {thing}!", "{praise} and well made"),
}
_OPENINGS = {
    1: ("Sent this {thing} back.", "A waste of money."),
    2: ("I expected more of this {thing}.", "The picture promises too much."),
    3: ("The {thing} does its job.", "Neither good nor bad."),
    4: ("A solid {thing} for the price.", "Nearly perfect."),
    5: ("The best {thing} I have owned.", "Exactly what I was looking for."),
}
_MIDDLES = (
    "It is {praise} as they say, and the {colour} looks right.",
    "I use it together with my other {range} things.",
    "My old {thing} was not {praise}, this one is.",
    "Bought it for the {range} shelf & it fits<br />well.",
    "Anyone who likes {department} will know what a {thing} has to do.",
)


@dataclass(frozen=True)
class Wording:
    """The words of one product."""

    department: str
    range: str
    thing: str
    praise: str
    brand: str
    colour: str
    number: int

    @property
    def title(self) -> str:
        """A product title as a seller writes it."""
        return f"{self.brand} {self.range} {self.praise} {self.thing}, {self.colour}, Model {self.number}"

    def fill(self, template: str) -> str:
        """Put the product's words into a sentence."""
        return template.format(
            thing=self.thing.lower(),
            praise=self.praise.lower(),
            colour=self.colour.lower(),
            range=self.range.lower(),
            department=self.department,
        )

    def review(self, rating: int, choice: int) -> tuple[str, str]:
        """Summary and text of a review with this rating; `choice` (any integer) picks among the sentences."""
        summaries, openings = _SUMMARIES[rating], _OPENINGS[rating]
        summary = summaries[choice % len(summaries)]
        opening, middle = openings[choice // 3 % len(openings)], _MIDDLES[choice // 6 % len(_MIDDLES)]
        return self.fill(summary), self.fill(f"{opening} {middle}")


def word_products(categories: np.ndarray, rng: np.random.Generator) -> list[Wording]:
    """Name every product: its category, [I] (below LARGEST_NUMBER_OF_CATEGORIES), gives words, chance picks."""
    departments = list(DEPARTMENTS)
    draws = rng.integers(0, 1 << 30, size=(len(categories), 5))
    wordings = []
    for category, (thing, praise, brand, colour, number) in zip(categories.tolist(), draws.tolist(), strict=True):
        department = departments[category % len(departments)]
        things, praises = DEPARTMENTS[department]
        wordings.append(
            Wording(
                department=department,
                range=RANGES[category // len(departments)],
                thing=things[thing % len(things)],
                praise=praises[praise % len(praises)],
                # a category has three brands of its own
                brand=BRANDS[(category * 3 + brand % 3) % len(BRANDS)],
                colour=COLOURS[colour % len(COLOURS)],
                number=100 + number % 900,
            )
        )
    return wordings
