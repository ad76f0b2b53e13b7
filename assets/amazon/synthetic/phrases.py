"""The words that reviews are made of, whatever the product: the patterns of their sentences, by mood.

Data only; how patterns become sentences is `sentences.py`'s subject. The alternatives of a part are parted by |.
"""

from __future__ import annotations

from dataclasses import dataclass

from assets.amazon.synthetic.words import GIVEN_NAMES

NO_WORD = ""


@dataclass(frozen=True)
class Pattern:
    """Sentences made of a beginning and an end, and these by taking one alternative of each of their parts.

    In the beginning {} stands for the product's word of the kind named.
    """

    word: str
    beginning: tuple[str, ...]
    end: tuple[str, ...]


def _numbers(first: int, last: int, form: str = "{}") -> str:
    return "|".join(form.format(number) for number in range(first, last + 1))


_NAMES = "|".join(f" {name}" for name in GIVEN_NAMES if name.isascii())
_RELATIONS = (
    "My husband|My wife|My daughter|My son|My neighbour|My friend|My sister|My brother|My colleague|My aunt|My cousin|"
    "My room mate|My boss|My nephew|Our guest|Our teacher"
)
_REACTIONS = (
    " asked where I found it| uses it every day| wanted one as well| saw it first| tried it twice| borrowed it|"
    " noticed it at once| has an opinion on it| laughed about it| took a photograph| shook her head|"
    " keeps it in the car| read the manual| won't give it back| got the same one| thinks it is too big|"
    " thinks it is too small| had a look| ordered another| was not convinced| told me about it| has had it for years"
)
_FOR_WHOM = (
    " for my mother| for my father| for our son| for a friend| for the office| for the cabin| for my niece|"
    " for a neighbour| for myself| for our trip| for the new flat| for my teacher| for grandma| for the guest room|"
    " for a wedding| for the workshop| for school| for two students| for the club| for a costume| for the boat|"
    " for my girlfriend| for the kids| for the balcony| for a raffle| for camp| for my retirement| for the church fair"
)
_OCCASIONS = (
    " as a birthday present| for the holidays| on a whim| after a long search| on sale| to replace an old one|"
    " because of the reviews| before we moved| at the last minute| as a spare| with some doubts| by mistake|"
    " in a hurry| after watching a video| when the shop had none| on a friend's advice| with a gift card| late at night"
)
_PARTS = (
    "finish|surface|box|label|size|weight|packaging|material|texture|design|edge|inside|first impression|quality|price|"
    "delivery|manual|shape|sound of it|smell|look|feel|seller's answer|make|underside|fit|top|bottom|cover|corner|seam|"
    "coating|thickness|balance|colouring|lettering|picture on the box|wrapping|warranty card|second one|left side|"
    "right side|front|back|middle|length|width|grip|closure|pattern|shine|warranty|refund|customer service|"
    "idea behind it|quantity|assembly|cleaning|storage|rim"
)
_ADVERBS = "|| quite| rather| simply| truly| a little| very"
_PLEASING = (
    "fine|solid|neat|lovely|perfect|smooth|good|right|generous|sturdy|beautiful|clever|simple|reliable|honest|clean|"
    "pleasant|comfortable|robust|elegant|handy|tight|precise|bright|calm|cheerful|practical|roomy|sharp|soft|tidy|"
    "wonderful|cosy|even|fresh|durable|superb|charming|light|easy|strong|rich|clear|thorough|modern|safe|quick|warm"
)
_PLAIN = (
    "average|acceptable|ordinary|fair|dull|decent|usual|tolerable|unremarkable|middling|passable|standard|bearable|"
    "conventional|modest|old-fashioned|bland|adequate|plain|typical|mixed|familiar|narrow|heavy|slow|simple|stiff|"
    "common|thin|vague|short|pale|quiet|basic|tolerable|predictable|unexciting|serviceable|sober|dry"
)
_POOR = (
    "poor|flimsy|awful|uneven|cheap|wrong|disappointing|rough|crooked|sloppy|useless|damaged|unpleasant|careless|"
    "sticky|loose|wobbly|stained|faded|thin|bent|torn|noisy|brittle|misleading|leaky|scratched|ugly|dirty|cracked|"
    "weak|dangerous|blurred|clumsy|greasy|hollow|rusty|sour|tangled|warped|itchy|fragile|broken|confusing"
)
_MONTHS = " January| February| March| April| May| June| July| August| September| October| November| December"
_WHEN = (
    "|| last week| on Sunday| on Monday| in the evening| twice| for once| at breakfast| the other day| right away|"
    " in spring| in autumn| all summer| over Christmas| without being asked| while I was away| before lunch|"
    " when it rained| after the game| on the train| in secret| more than once| as if it were new| with a smile"
)
_TOWNS = (
    "Ash|Bel|Cor|Dun|Elm|Fair|Glen|Hart|Iver|Kings|Lang|Mill|Nor|Oak|Penn|Quin|Red|Stan|Thorn|Under|Vel|Wood|Yar",
    "bridge|bury|church|dale|den|field|ford|gate|ham|ley|minster|mont|mouth|port|shire|ton|ville|wick|wood|worth",
)
_OBJECTS = (
    "anchor|apron|attic|banjo|barrel|basket|bathtub|bench|bicycle|blanket|bonfire|bookcase|bucket|cactus|calendar|"
    "candle|canoe|carpet|cellar|chessboard|chimney|clarinet|cupboard|curtain|cushion|dashboard|doorbell|drawer|"
    "dresser|dustpan|envelope|fence|fiddle|flagpole|footpath|fountain|freezer|frying pan|garage|gate|gramophone|"
    "greenhouse|hallway|hammock|harbour|hedge|helmet|jukebox|kennel|kettle|kiosk|ladder|lantern|lighthouse|"
    "lunchbox|magnet|mailbox|mantelpiece|mirror|motorbike|napkin|nightstand|orchard|oven|paddle|pantry|parasol|"
    "pergola|pillow|playground|plough|pond|porch|pushchair|quilt|radiator|rucksack|sandpit|sauna|saxophone|shelf|"
    "shovel|sidewalk|sink|skateboard|sledge|sofa|spade|staircase|stove|suitcase|swing|tablecloth|teapot|telescope|"
    "terrace|thermos|toolshed|tractor|trampoline|trombone|tugboat|typewriter|umbrella|vase|veranda|wagon|wardrobe|"
    "washstand|wheelbarrow|windmill|windowsill|workbench|yardstick|zither"
)
_WHERE = (" next to the | behind the | with the | near our | under a | as on the | beside my | like a ", _OBJECTS)

_NEUTRAL = (
    Pattern(
        NO_WORD,
        (
            "I have used it for |We have had it for |I have owned it for |It has been in use for |I tested it for ",
            _numbers(2, 60),
            " days| weeks| months",
        ),
        (" now, and the | so far; the ", _PARTS, " is the same.| has changed.| has suffered.| is why.| is like new."),
    ),
    Pattern(
        NO_WORD,
        ("I paid $|It cost me $|It was $|Got it for $", _numbers(4, 89), _numbers(0, 99, ".{:02d}")),
        (" in | near | at a shop in | from a seller in ", *_TOWNS, ".|, plus tax."),
    ),
    Pattern(
        NO_WORD,
        ("It came on|Ordered it on|Sent it back on|A new one came on|Opened it on", _MONTHS, _numbers(1, 28, " {}")),
        (", from | and took it to |; it had been to ", *_TOWNS, "."),
    ),
    Pattern(NO_WORD, ("It is |Mine is |I measured ", _numbers(3, 48), " by "), (_numbers(3, 48), " inches.| cm.")),
    Pattern(
        NO_WORD,
        ("Bought it|Ordered this one|Got it|Picked it up|I chose it", _FOR_WHOM),
        (_OCCASIONS, *_WHERE, "."),
    ),
    Pattern(NO_WORD, (_RELATIONS, _NAMES), (_REACTIONS, *_WHERE, ".")),
    Pattern(
        "range",
        (
            "I use it together with|It sits next to|I bought it to go with|It replaced one of|It is kept among",
            " my other {} things| the rest of my {} gear| what I have in {} style| our {} collection",
        ),
        (*_WHERE, ".|, which says a lot.|, for what it's worth.|, as you do.|, and that was the idea."),
    ),
    Pattern(
        "department",
        ("Anyone who likes {}|Whoever shops for {}|People who know {}|Those who are into {}",),
        (
            " will look at the | can judge the | should check the | will ask about the ",
            _PARTS,
            ".|, I suppose.|; I do.",
        ),
    ),
    Pattern(
        "colour",
        ("The {} one|Mine is {} and it|In {} it|I took the {} one, which",),
        (" looks right| is too dark| is lighter than expected| shows every stain", *_WHERE, ".| in daylight.| to me."),
    ),
    Pattern(
        "praise",
        ("They call it {}|It says {} on the box|I looked for {}|It is sold as {}",),
        ("| and I checked|, which mattered to me|, like my old one", _WHEN, "."),
    ),
)


def _about_parts(judged: str, close: str) -> Pattern:
    return Pattern(NO_WORD, ("The ", _PARTS, " is", _ADVERBS, " "), (judged, " and |, ", judged, close))


TEXT_SENTENCES = (
    (
        _about_parts(_POOR, ".|, sadly.|!"),
        Pattern(
            "praise", ("It is not {}|Nothing about it is {}|So much for {}",), ("!| at all.|, whatever they say.",)
        ),
        Pattern(
            "thing",
            ("My old {}|Any other {}|The {} I had before|A {} from the corner shop",),
            (
                " was better| lasted longer| did the job| cost less| never broke",
                *_WHERE,
                ".|, and I miss it.|, honestly.",
            ),
        ),
        *_NEUTRAL,
    ),
    (
        _about_parts(_PLAIN, ".|, I think.|, no more."),
        Pattern(
            "praise", ("It is {} enough|It is somewhat {}|More or less {}",), (".| for the price.|, most of the time.",)
        ),
        Pattern(
            "thing",
            ("I have seen a better {}|I have seen a worse {}|It is a {}",),
            (" from | but not from from | as they have it in ", *_TOWNS, "."),
        ),
        *_NEUTRAL,
    ),
    (
        _about_parts(_PLEASING, ".|!|, I think."),
        Pattern(
            "praise", ("It really is {}|Truly {}|As {} as they say|So {}",), ("!|, which I like.|.|, and I can tell.",)
        ),
        Pattern(
            "thing",
            ("Every {} should be like this|I would buy this {} again|This {} is a keeper|No other {} comes close",),
            (*_WHERE, ".|!|, if you ask me."),
        ),
        *_NEUTRAL,
    ),
)
TEXT_OPENINGS = (
    (
        Pattern("thing", ("Sent this {} back|I regret this {}|This {} broke|Avoid this {}",), (".|!| and how.",)),
        Pattern("thing", ("I expected more of this {}|The {} in the picture is another one",), (".|!|, sorry.",)),
        Pattern(NO_WORD, ("A waste of money|Not worth it|Don't bother|It arrived broken|Never again",), (".|!|...",)),
    ),
    (
        Pattern(
            "thing", ("The {} does its job|It's a {}|An okay {}|The {} is alright",), (".|, nothing more.| so far.",)
        ),
        Pattern(
            NO_WORD, ("Neither good nor bad|It's okay|Could be better|You get what you pay for",), (".|...|, I guess.",)
        ),
    ),
    (
        Pattern("thing", ("Love this {}|The best {} I have owned|Great {}|A solid {}",), ("!|.| for the price.",)),
        Pattern(
            "thing", ("Exactly the {} I was looking for|This is my second {} of the kind",), (".|!|, and a good one.",)
        ),
        Pattern("praise", ("Nice and {}|Well made and {}|Wonderfully {}",), (".|!|, like they said.",)),
        Pattern(
            NO_WORD,
            ("Works great|Very pleased|As described|Great product|Love it|Perfect|Good value",),
            (".|!|!!| :)",),
        ),
    ),
)
_STARS = ("One Star", "Two Stars", "Three Stars", "Four Stars", "Five Stars")
_SUMMARIES = (
    (
        Pattern(
            "thing",
            (
                "Do not buy this|Disappointing|Broken|Cheap|A poor excuse for a",
                " {}",
            ),
            ("|!|.",),
        ),
        Pattern(NO_WORD, ("Not as described|Broke at once|Disappointed|Waste of money|Returned it",), ("|!|.",)),
    ),
    (
        Pattern(
            "thing",
            (
                "A decent|An average|An okay|Just a|Not a bad",
                " {}",
            ),
            ("|.| for the money",),
        ),
        Pattern(NO_WORD, ("It's okay|Could be better|Not bad|Average|Meh",), ("|.|...",)),
    ),
    (
        Pattern(
            "thing",
            (
                "Love this|Great|Best|A very good|Happy with my|Excellent",
                " {}",
            ),
            ("|!|.| so far",),
        ),
        Pattern("praise", ("{} and well made|Really {}|Good, and {}",), ("|!|.",)),
        Pattern(NO_WORD, ("Love it|Great|Would buy again|Works well|Very nice|Highly recommended",), ("|!|!!|.",)),
    ),
)
BAD, MIDDLING, GOOD = range(3)
MOOD_OF_RATING = (BAD, BAD, BAD, MIDDLING, GOOD, GOOD)  # by rating; there is no 0
# by rating less one; a quarter and more of them are what the shop suggests
SUMMARIES = tuple(
    (Pattern(NO_WORD, (stars,), ("",)), *_SUMMARIES[mood])
    for stars, mood in zip(_STARS, MOOD_OF_RATING[1:], strict=True)
)
