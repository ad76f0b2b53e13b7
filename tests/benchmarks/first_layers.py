"""Memory to read the first 4 layers of a backbone of 32 from disk, against that of all 32.

The backbone has random weights, and a token table of LLaMA's 32,000 rows, of which neither side reads any.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from models.backbone.architecture import TOKENIZER
from models.backbone.decoder import load_decoder
from tests.benchmarks.harness import Measurement, in_own_process, memory_raised_by
from tests.benchmarks.plain_path import FULL_SIZE, Sizes

MEBIBYTE = 2**20
TOKENS = 32_000


def measure_memory(sizes: Sizes = FULL_SIZE, tokens: int = TOKENS) -> Measurement:
    """Mebibytes, each side in a fresh process."""
    with TemporaryDirectory(prefix="slmrec-benchmark-") as directory:
        in_own_process(write_backbone, Path(directory), sizes, tokens)
        value, reference = (
            in_own_process(_memory_of_first_layers, Path(directory), layers) / MEBIBYTE
            for layers in (sizes.student, sizes.deep)
        )
    return Measurement(value, reference, "MiB")


def write_backbone(directory: Path, sizes: Sizes, tokens: int) -> None:
    """A random LLaMA with `deep` layers as the Hugging Face hub has them, and a tokenizer of one word."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.deep,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=128,
    )
    LlamaModel(config).save_pretrained(directory)
    Tokenizer(WordLevel({"word": 0}, unk_token="word")).save(str(directory / TOKENIZER))


def _memory_of_first_layers(directory: Path, layers: int) -> int:
    load_decoder(directory, [1])  # so that what transformers imports for it isn't counted
    return memory_raised_by(lambda: load_decoder(directory, range(1, layers + 1)))
