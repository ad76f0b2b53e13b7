"""How recommenders, metrics and numbers are named, ordered and coloured wherever results are shown.

Belongs here: what tables, figures and the report share, so that a recommender looks the same in all of them.
Not here: the tables, figures and the report.
"""

from collections.abc import Iterable

from evaluation.records import ResultRecord

METRIC_LABELS = {
    "hr_at_1": "HR@1",
    "hr_at_5": "HR@5",
    "hr_at_10": "HR@10",
    "ndcg_at_5": "NDCG@5",
    "ndcg_at_10": "NDCG@10",
    "mrr": "MRR",
}

TERM_LABELS = {"ce": "L_ce", "cos": "D_cos", "norm": "D_norm", "ms": "L_ms", "kl": "KL", "teacher_ce": "teacher's L_ce"}
"""The loss terms of `models.slmrec.distillation` as the paper writes them; other terms keep their names."""

RECOMMENDERS = {
    "popularity": ("Popularity", "#8c939e"),
    "item_knn": ("Item-kNN", "#b5a642"),
    "caser": ("Caser", "#88ccee"),
    "gru4rec": ("GRU4Rec", "#6699cc"),
    "bert4rec": ("BERT4Rec", "#44aa99"),
    "sasrec": ("SASRec", "#2b7bba"),
    "hgn": ("HGN", "#999933"),
    "lightsans": ("LightSANs", "#ddcc77"),
    "s3rec": ("S3-Rec", "#aa4499"),
    "duorec": ("DuoRec", "#cc6677"),
    "maerec": ("MAERec", "#882255"),
    "open_p5": ("Open-P5", "#661100"),
    "teacher": ("Teacher (E4SRec)", "#e69f00"),
    "student": ("Student (SLMRec)", "#009e73"),
    "online_student": ("Online student", "#56b4e9"),
    "quantized_student": ("Quantised student", "#cc79a7"),
    "pruned_student": ("Pruned student", "#d55e00"),
}
"""Short name -> label and colour, in the order of tables. Colours from Okabe & Ito's and Tol's palettes for
the colour-blind; the four of the main table differ in lightness too."""

_OTHER_COLOUR = "#777777"


def label(recommender: str) -> str:
    """The name for readers; another model keeps its own."""
    return RECOMMENDERS[recommender][0] if recommender in RECOMMENDERS else recommender.replace("_", " ")


def colour(recommender: str) -> str:
    """The recommender's colour in every figure."""
    return RECOMMENDERS[recommender][1] if recommender in RECOMMENDERS else _OTHER_COLOUR


def ordered(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    """In the order of `RECOMMENDERS`, unknown ones after them by name."""
    places = {name: place for place, name in enumerate(RECOMMENDERS)}
    return sorted(records, key=lambda record: (places.get(record.recommender, len(places)), record.recommender))


def by_protocol(records: Iterable[ResultRecord]) -> dict[str, list[ResultRecord]]:
    """Protocol key -> its records in order; full ranking, the honest measure, comes first."""
    groups: dict[str, list[ResultRecord]] = {}
    for record in ordered(records):
        groups.setdefault(record.key, []).append(record)
    return dict(sorted(groups.items(), key=lambda item: (not item[0].startswith("full"), item[0])))


def protocol_title(key: str) -> str:
    """A protocol's key for readers.

    >>> [protocol_title(key) for key in ("full", "sampled_1000_with_seen")]
    ['Full ranking', '1 + 1,000 sampled candidates, seen items included']
    """
    kind, _, rest = key.partition("_")
    seen = ", seen items included" if key.endswith("with_seen") else ""
    return f"Full ranking{seen}" if kind == "full" else f"1 + {int(rest.split('_')[0]):,} sampled candidates{seen}"


def duration(seconds: float) -> str:
    """Seconds for readers.

    >>> [duration(s) for s in (0.04, 8.25, 75, 7320)]
    ['0.04 s', '8.2 s', '1 min 15 s', '2 h 02 min']
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: float) -> str:
    """A large count for readers.

    >>> [count(n) for n in (950, 12_101, 3_452_000, 6_631_000_000)]
    ['950', '12,101', '3.45 M', '6.63 B']
    """
    if number >= 1e9:
        return f"{number / 1e9:.2f} B"
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,.0f}"


def percent(share: float, decimals: int, sign: str = "-") -> str:
    """A share of 1 for readers.

    >>> [percent(0.0248, 1), percent(-0.031, 1), percent(0.12, 0, sign="+")]
    ['2.5 %', '−3.1 %', '+12 %']
    """
    return f"{100 * share:{sign}.{decimals}f} %".replace("-", "−")


def memory(number: int | None) -> str:
    """Bytes for readers; a dash where unknown (None or 0).

    >>> [memory(n) for n in (None, 734_003_200, 5_368_709_120)]
    ['–', '700 MiB', '5.0 GiB']
    """
    if not number:
        return "–"
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"
