import pytest
from tokenizers import Tokenizer, processors

from models.backbone.language_model import train_tokenizer
from models.slmrec.recommender import AFTER_ITEMS, BEFORE_ITEMS, PROMPT, prompt_tokens


@pytest.fixture(scope="module")
def words() -> tuple[Tokenizer, list[int], list[int]]:
    tokenizer = train_tokenizer([], 400, PROMPT)
    before, after = (tokenizer.encode(text, add_special_tokens=False).ids for text in (BEFORE_ITEMS, AFTER_ITEMS))
    return tokenizer, before, after


@pytest.mark.parametrize(
    ("template", "front"), [("<s> $A", [0]), ("$A", []), ("<s> <s> $A <s>", [0, 0]), ("$A <s>", [])]
)
def test_special_tokens_stand_in_front_only(template: str, front: list[int], words: tuple) -> None:
    """An end of sequence before the items would tell the model that nothing comes."""
    tokenizer, before, after = words
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0)])
    assert prompt_tokens(tokenizer, "last") == (front + before, after)
    assert prompt_tokens(tokenizer, "all_positions") == (front + before + after, [])


def test_the_words_are_the_released_ones() -> None:
    """The Alpaca template with SLMRec's instruction; one line break before the response."""
    assert PROMPT.startswith("Below is an instruction that describes a task, paired with an input that provides ")
    assert PROMPT.endswith(
        "### Instruction:\nGiven the user's purchase history, predict next possible item to be purchased.\n\n"
        "### Input:\n\n### Response:\n"
    )
    assert AFTER_ITEMS == "\n### Response:\n"
