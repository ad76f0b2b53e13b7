"""The E4SRec-type recommender: a language model's layers read a user's history, a dot product ranks the items.

Belongs here: the whole recommender, from top to bottom: its choices, the words around the items, what it trains on, and
the model in the order of its forward pass. Not here: reading layers from disk and running them (`backbone/`), what a
student learns from a teacher (`distillation.py`), the trainings (`teacher.py`, `student.py`).

    [prompt before] [item slots] [prompt after]  ->  adapters and layers  ->  h_u . h_i for every item i

Source: SLMRec (arXiv 2405.17890), section 3, on E4SRec (arXiv 2312.02443). An item slot is the item's ID embedding
through a linear input adapter; h_u is the last token's state through a linear output adapter; the loss is softmax
cross-entropy over the catalogue. Trained in the paper: the adapters and LoRA. Frozen: the language model and the item
embeddings.

Letters: B users, L items of the longest history, P prompt tokens before the items, R after them, S = L + R (the tokens
that differ between users), H width of the language model, D width of the item embeddings, V catalogue, N positions that
are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.backbone.architecture import empty_decoder, random_decoder, read_architecture, with_layers
from models.backbone.decoder import load_decoder, load_tokenizer, read_token_rows
from models.backbone.layer_stack import LayerStack
from models.backbone.lora import LoraSettings, add_lora, plain_decoder
from models.backbone.quantization import store_in_full
from models.device import best_device
from models.losses.sampled import SampledSoftmax, training_cross_entropy
from models.recommender import EmbeddingRecommender, inference
from models.sequences import Sequences
from models.settings import check_choices, check_range

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

USERS_AT_ONCE = 64
"""Users that are represented in one pass: few enough for their histories to be of like length."""

BEFORE_ITEMS = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
    "Given the user's purchase history, predict next possible item to be purchased.\n\n"
    "### Input:\n"
)
AFTER_ITEMS = "\n### Response:\n"
"""The Alpaca template around the item slots, with SLMRec's instruction (section 3), and one line break before the
response as in its released code. The last token is the one that is read out."""
PROMPT = BEFORE_ITEMS + AFTER_ITEMS


def prompt_tokens(tokenizer: Tokenizer, objective: Literal["last", "all_positions"]) -> tuple[list[int], list[int]]:
    """The tokens before and after the item slots; with `all_positions` all of them stand before.

    What the tokenizer puts in front of every text, such as LLaMA's start of sequence, is kept: the backbone has never
    read a text without it (ours; the released code leaves it out). What it puts behind is not: the text goes on.
    """
    encoded = tokenizer.encode(BEFORE_ITEMS)
    front = len(list(takewhile(bool, encoded.special_tokens_mask)))
    before = encoded.ids[:front] + tokenizer.encode(BEFORE_ITEMS, add_special_tokens=False).ids
    after = tokenizer.encode(AFTER_ITEMS, add_special_tokens=False).ids
    return (before, after) if objective == "last" else (before + after, [])


def check_fit(directory: Path, config: LLMRecommenderConfig) -> None:
    """See that the backbone in `directory` has the layers that are wanted, and room for prompt and items.

    Raises:
        ValueError: if it hasn't; says what to change.
    """
    architecture = read_architecture(directory)
    if config.layers > (depth := architecture.num_hidden_layers):
        raise ValueError(
            f"{config.layers} layers are wanted, but the backbone has {depth}: lower model.layers of teacher and "
            "student, or choose a deeper backbone."
        )
    before, after = prompt_tokens(load_tokenizer(directory), config.objective)
    _check_context(len(before) + len(after), config, architecture.max_position_embeddings)


def _check_context(prompt: int, config: LLMRecommenderConfig, context: int) -> None:
    if prompt + config.max_items > context:
        raise ValueError(
            f"The prompt's {prompt} tokens and {config.max_items} items make {prompt + config.max_items}, but the "
            f"backbone reads {context}: lower model.max_items of teacher and student by "
            f"{prompt + config.max_items - context}, or raise backbone.context."
        )


@dataclass(frozen=True)
class LLMRecommenderConfig:
    """The recommender on top of a backbone.

    Attributes:
        layers: how many of the backbone's layers are used (the paper: the first 8 in the teacher, 4 in the student).
        objective: what is supervised.
            `last` is the paper: one target a user. The response words stand after the items; the last one is read.
            `all_positions` is ours: the response words stand before the items, so that each item slot, which sees
            only what is before it, predicts the next item in the same pass; the last slot represents the user.
        max_items: the latest items of a history that are read (30 in the released code).
        tuned: how the layers learn, beside the two item adapters, which always do: through LoRA (the paper), with
            `all` their weights and the final norm's, with None not at all.
        item_embeddings: `frozen` (the paper), or `trained` on from the table that is given (ours).
        sampled_softmax: above which catalogue size training's cross-entropy is estimated from drawn items, and how
            many are drawn a step (`losses/sampled.py`); None: never.
        quantization: how the backbone's linear maps are held: as they come, or in 8 or 4 bits (on CUDA, by
            bitsandbytes; 8 in the released code of 2024). A checkpoint holds what they stand for in full precision.
        gradient_checkpointing: keep only the states between layers for the backward pass and compute the rest anew:
            the same gradients, from less memory and about a third more time.
        shared_prompt: run the prompt before the items once a batch, its keys and values serving every user, instead of
            once a user; outside training, once for all batches. The same result, for the prompt sees no item: to 1e-8
            in float64; under bfloat16 autocast to 0.9 % of the largest number, where bfloat16 itself lies 1.2 % off
            float32 (`test_precision.py`). In training, LoRA's dropout then falls on the prompt once a batch.
        length_buckets: pad a batch to its longest history, and represent users of like length together; else pad to
            `max_items`, as the released code does. The same result: padding is never read.

    Raises:
        ValueError: on a value out of range, or two that exclude each other.
    """

    layers: int
    objective: Literal["last", "all_positions"] = "last"
    max_items: int = 30
    tuned: LoraSettings | Literal["all"] | None = LoraSettings()  # noqa: RUF009 (frozen)
    item_embeddings: Literal["frozen", "trained"] = "frozen"
    sampled_softmax: SampledSoftmax | None = None
    quantization: Literal["none", "8bit", "4bit"] = "none"
    gradient_checkpointing: bool = False
    shared_prompt: bool = True
    length_buckets: bool = True

    def __post_init__(self) -> None:
        check_range(self, "layers max_items", least=1)
        check_choices(self)
        if not (self.tuned in (None, "all") or isinstance(self.tuned, LoraSettings)):
            raise ValueError(f"tuned must be LoRA's settings, all or null, not {self.tuned!r}.")
        if self.tuned == "all" and self.quantization != "none":
            raise ValueError("Quantised layers can't be trained themselves: set tuned to LoRA's settings.")

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also where JSON lies between."""
        parts = dict(choices)
        if isinstance(parts["tuned"], dict):
            parts["tuned"] = LoraSettings(**{**parts["tuned"], "targets": tuple(parts["tuned"]["targets"])})
        if parts.get("sampled_softmax") is not None:
            parts["sampled_softmax"] = SampledSoftmax(**parts["sampled_softmax"])
        return cls(**parts)


class NextItemExamples:
    """What the recommender trains on (`training.config.Examples`): one row a sequence of at least two items.

    With the objective `last`, a sequence's last item is the target and up to `max_items` before it are the
    history; with `all_positions`, each of the last `max_items` items but the first of the sequence is the
    target of those before it.

    Raises:
        ValueError: if no sequence has two items.
    """

    def __init__(self, sequences: Sequences, config: LLMRecommenderConfig):
        usable = sequences.take(np.flatnonzero(sequences.lengths >= 2))
        if len(usable) == 0:
            raise ValueError(
                "No training sequence has two items, a history and a target: lower the domain's filters or "
                "give it more interactions."
            )
        self.sequences = usable.tail(config.max_items + 1)
        self.lengths = self.sequences.lengths - 1
        self.all_positions = config.objective == "all_positions"
        self.targets_of_rows = self.lengths if self.all_positions else np.ones(len(self.lengths), dtype=np.int64)
        self._columns = None if config.length_buckets else config.max_items + 1

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows' histories, padded on the right, and their targets.

        Returns:
            `items` int64 [B, L]; `lengths` [B]; `targets` [N], in the order of `supervised_states`; `share`, the
            targets over those of as many average rows, by which a position counts the same in every batch (as in
            `baselines/sasrec.py`).
        """
        sequences, lengths = self.sequences.take(rows), self.lengths[rows]
        items_BL = sequences.padded(self._columns)
        last_B = sequences.values[sequences.offsets[1:] - 1]
        history_BL = np.where(np.arange(items_BL.shape[1] - 1) < lengths[:, None], items_BL[:, :-1], 0)
        targets_N = items_BL[:, 1:][history_BL > 0] if self.all_positions else last_B
        return {
            "items": torch.from_numpy(history_BL),
            "lengths": torch.from_numpy(lengths),
            "targets": torch.from_numpy(targets_N),
            "share": torch.tensor(len(targets_N) / (len(rows) * self.targets_of_rows.mean()), dtype=torch.float32),
        }


class LLMRecommender(EmbeddingRecommender):
    """See the module's docstring; made by one of the `from_` methods, or read back by `files.load_recommender`.

    Args:
        config: the choices.
        decoder: of `config.layers` layers; they and its norm are taken over.
        before_PH, after_RH: the token table's rows of the prompt before and after the items.
        items_VD: the item embeddings [V + 1, D]; row 0 is padding.
    """

    def __init__(
        self,
        config: LLMRecommenderConfig,
        decoder: PreTrainedModel,
        before_PH: Tensor,
        after_RH: Tensor,
        items_VD: Tensor,
    ):
        super().__init__()
        architecture = decoder.config
        if architecture.num_hidden_layers != config.layers:
            raise ValueError(
                f"The recommender has {config.layers} layers, but {architecture.num_hidden_layers} were chosen for it: "
                "choose as many as it has, or change layers."
            )
        _check_context(len(before_PH) + len(after_RH), config, architecture.max_position_embeddings)
        self.settings = config  # not `config`: Trainer writes into a model's attribute of that name
        self.architecture = architecture
        self.n_items = len(items_VD) - 1

        self.before_PH = nn.Buffer(before_PH)
        self.after_RH = nn.Buffer(after_RH)
        self.items_VD = nn.Parameter(items_VD) if config.item_embeddings == "trained" else nn.Buffer(items_VD)
        self.input_adapter = self.new_input_adapter()
        self.norm = decoder.get_submodule("norm").requires_grad_(config.tuned == "all")
        self.decoder = LayerStack(decoder, checkpointing=config.gradient_checkpointing)
        self.decoder.requires_grad_(config.tuned == "all")
        if isinstance(config.tuned, LoraSettings):
            add_lora(self.decoder, config.tuned)
        self.output_adapter = self.new_output_adapter()

    @classmethod
    def from_backbone(
        cls,
        config: LLMRecommenderConfig,
        directory: Path,
        items_VD: Tensor,
        *,
        seed: int,
        layers: Sequence[int] | None = None,
    ) -> LLMRecommender:
        """A recommender with fresh adapters, drawn by `seed`, on the backbone in `directory`, on the `best_device`.

        Args:
            config: the choices.
            directory: of `backbone.sources.build_backbone`.
            items_VD: float [V + 1, D], the item embeddings (SASRec's item table); row 0 is padding.
            seed: see above.
            layers: which of the backbone's, from 1 (`layers.choose_layers`); the first ones by default.

        Raises:
            ValueError: if the backbone has no such layers, or the prompt and the items don't fit into its context.
        """
        decoder = load_decoder(directory, layers or range(1, config.layers + 1), config.quantization)
        before, after = prompt_tokens(load_tokenizer(directory), config.objective)
        rows_PH, rows_RH = read_token_rows(directory, before + after).split([len(before), len(after)])
        recommender = cls._fresh(config, decoder, rows_PH, rows_RH, items_VD, seed)
        if config.quantization != "none":
            store_in_full(recommender.decoder)
        return recommender.to(best_device())

    @classmethod
    def from_teacher(
        cls, config: LLMRecommenderConfig, teacher: LLMRecommender, *, seed: int, layers: Sequence[int] | None = None
    ) -> LLMRecommender:
        """A recommender on layers of a trained one, whose LoRA is folded into them; new LoRA starts beside them.

        The item adapters, prompt, final norm and item embeddings are the teacher's too (ours: its layers have learnt to
        read slots of that adapter). Nothing is shared: the teacher stays as it is. Arguments as of `from_backbone`.

        Raises:
            ValueError: if the teacher has no such layers, or another objective, or the config wants quantisation.
        """
        _refuse_quantization(config)
        if config.objective != teacher.settings.objective:
            raise ValueError("A recommender made from a teacher needs its objective: the prompt is cut by it.")
        numbers = layers or range(1, config.layers + 1)
        decoder = deepcopy(plain_decoder(teacher.decoder, teacher.architecture, numbers))
        decoder.norm = deepcopy(teacher.norm)
        decoder.get_submodule("layers").to(teacher.items_VD.dtype)  # which a teacher may hold in bfloat16
        student = cls._fresh(config, decoder, teacher.before_PH, teacher.after_RH, teacher.items_VD, seed)
        student.to(teacher.items_VD)  # its device and precision
        student.input_adapter.load_state_dict(teacher.input_adapter.state_dict())
        student.output_adapter.load_state_dict(teacher.output_adapter.state_dict())
        return student

    @classmethod
    def from_random(
        cls, config: LLMRecommenderConfig, directory: Path, items_VD: Tensor, *, seed: int
    ) -> LLMRecommender:
        """The control: the architecture and tokenizer of the backbone in `directory`, with nothing that it has learnt.

        Layers are drawn as transformers draws them, the prompt's token vectors likewise. Arguments and errors as of
        `from_backbone`; with frozen random layers LoRA alone has to make up for them, so think of `tuned: all`.
        """
        _refuse_quantization(config)
        architecture = with_layers(read_architecture(directory), range(1, config.layers + 1))
        before, after = prompt_tokens(load_tokenizer(directory), config.objective)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            decoder = random_decoder(architecture)
            rows = torch.randn(max(before + after) + 1, architecture.hidden_size) * architecture.initializer_range
        return cls._fresh(config, decoder, rows[before], rows[after], items_VD, seed).to(best_device())

    @classmethod
    def _fresh(
        cls,
        config: LLMRecommenderConfig,
        decoder: PreTrainedModel,
        before_PH: Tensor,
        after_RH: Tensor,
        items_VD: Tensor,
        seed: int,
    ) -> LLMRecommender:
        """A recommender with copies of these tables and adapters drawn by `seed`."""
        if items_VD.ndim != 2 or not torch.isfinite(items_VD).all() or not items_VD[1:].any():
            raise ValueError("The item embeddings must be a finite matrix with a row an item; check item_embeddings.")
        items_VD = items_VD.detach().to(before_PH, copy=True)
        items_VD[0] = 0  # padding; without a gradient it stays so where the embeddings are trained
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(config, decoder, before_PH.clone(), after_RH.clone(), items_VD)

    def new_input_adapter(self) -> nn.Linear:
        """From item embedding to slot. It starts with slots of the size of the prompt's tokens (ours)."""
        adapter = nn.Linear(self.items_VD.shape[1], self.architecture.hidden_size)
        nn.init.zeros_(adapter.bias)
        return self._spread(adapter, self.before_PH.square().mean().sqrt())

    def new_output_adapter(self) -> nn.Linear:
        """From state to item embedding. It starts with scores of about unit variance: a loss near log V (ours)."""
        adapter = nn.Linear(self.architecture.hidden_size, self.items_VD.shape[1], bias=False)
        return self._spread(adapter, self.architecture.hidden_size**-0.5)

    @torch.no_grad()
    def _spread(self, adapter: nn.Linear, size: Tensor | float) -> nn.Linear:
        """The adapter, its weights drawn with the deviation `size` over the root mean square of the items' lengths.

        Drawn on the CPU: the same ones on every device.
        """
        deviation = size / self.items_VD[1:].square().sum(1).mean().sqrt().clamp(min=1e-6)
        nn.init.normal_(adapter.weight).mul_(deviation.to(adapter.weight.device))
        return adapter.to(self.items_VD)

    def forward(
        self, items: Tensor, lengths: Tensor, targets: Tensor, share: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """A batch of `NextItemExamples`: `ce`, which is L_ce, and `loss`, which is L_ce times the batch's share."""
        (state_NH,) = self.supervised_states(items, lengths, (self.settings.layers,))
        user_ND = self.output_adapter(state_NH).to(self.items_VD.dtype)  # in full precision under autocast too
        ce = training_cross_entropy(user_ND, self.items_VD, targets, self.settings.sampled_softmax)
        return {"loss": ce * share, "ce": ce}

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU: h_u of each user, from the latest `max_items` items.

        Users go through the model in passes of `USERS_AT_ONCE`; with `length_buckets` those of like length together,
        so that no pass is longer than its users need. The result is in the order of `histories`.

        Raises:
            ValueError: on an empty history or an unknown item.
        """
        recent = self._readable(histories)
        with inference(self):
            return self._users(recent).float().cpu()

    def _users(self, recent: Sequences) -> Tensor:
        """[B, D], in the model's precision."""
        order = np.argsort(recent.lengths, kind="stable") if self.settings.length_buckets else np.arange(len(recent))
        user_BD = self.items_VD.new_empty(len(recent), self.items_VD.shape[1])
        for start in range(0, len(order), USERS_AT_ONCE):
            rows = order[start : start + USERS_AT_ONCE]
            items_BL, lengths_B = self._on_device(recent.take(rows))
            if self.settings.shared_prompt and self.settings.tuned is None:
                tokens_BSH, last_B = self._tokens(items_BL, lengths_B), lengths_B + len(self.after_RH) - 1
                state_BH = self.norm(self.decoder.last_states(tokens_BSH, last_B, self.before_PH))
            else:
                (state_BH,) = self.supervised_states(items_BL, lengths_B, (self.settings.layers,), last=True)
            user_BD[torch.from_numpy(rows)] = self.output_adapter(state_BH).to(user_BD.dtype)
        return user_BD

    def _readable(self, histories: Sequences) -> Sequences:
        """The latest `max_items` items of each history; ValueError where there are none, or unknown ones."""
        self.check_histories(histories)
        if not histories.lengths.all():
            raise ValueError("A history without items can't be represented; recommend the most popular items there.")
        return histories.tail(self.settings.max_items)

    def _on_device(self, histories: Sequences) -> tuple[Tensor, Tensor]:
        """Items [B, L], padded on the right, and lengths [B]."""
        padded_BL = histories.padded(None if self.settings.length_buckets else self.settings.max_items)
        device = self.items_VD.device
        return torch.from_numpy(padded_BL).to(device), torch.from_numpy(histories.lengths).to(device)

    def item_table(self) -> Tensor:
        """[V + 1, D]: the item embeddings, frozen or trained; row 0 is zero."""
        return self.items_VD

    def supervised_states(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        layers: Sequence[int],
        *,
        normed: bool = True,
        last: bool = False,
    ) -> list[Tensor]:
        """For each of `layers` (1..M) its states [N, H] at the positions that have a target.

        N = B with the objective `last`; with `all_positions` every item slot, users one after another, unless only
        each user's `last` token is wanted. `normed` applies the final norm to every layer's state alike; without it,
        all are the residual stream as it is. (The released code takes the last one normed and the others not, which
        mixes two scales.) An output adapter reads normed states: `self.norm` turns the others into them.
        """
        if last or self.settings.objective == "last":
            users_N = torch.arange(len(items_BL), device=items_BL.device)
            tokens_N = lengths_B + len(self.after_RH) - 1
        else:
            users_N, tokens_N = items_BL.nonzero(as_tuple=True)
        states = self._decode(self._tokens(items_BL, lengths_B), layers)
        read = [state_BSH[users_N, tokens_N] for state_BSH in states]
        return [self.norm(state_NH) for state_NH in read] if normed else read

    def token_states(self, histories: Sequences, layers: Sequence[int]) -> list[Tensor]:
        """For each of `layers` (0 is the first one's input) its states [N, H] at every token of the users' own.

        These are the item slots and the words after them, users one after another; the residual stream, not normed.

        Raises:
            ValueError: on an empty history or an unknown item.
        """
        items_BL, lengths_B = self._on_device(self._readable(histories))
        tokens_BSH = self._tokens(items_BL, lengths_B)
        own_BS = torch.arange(tokens_BSH.shape[1], device=items_BL.device) < lengths_B[:, None] + len(self.after_RH)
        return [state_BSH[own_BS] for state_BSH in self._decode(tokens_BSH, layers)]

    def _tokens(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, S, H]: each user's item slots, the prompt after them at once, and then padding.

        Padding comes last and attention looks back only, so no real token sees it and positions have no gap. Autocast
        or not, tokens have the prompt's precision, and so has the residual stream.
        """
        slots_BLH = self.input_adapter(self.items_VD[items_BL]).to(self.before_PH.dtype)
        longest, after = items_BL.shape[1], len(self.after_RH)
        if after == 0:
            return slots_BLH
        position_1S = torch.arange(longest + after, device=items_BL.device)[None]
        beyond_BS = position_1S - lengths_B[:, None]
        source_BS = torch.where(beyond_BS < 0, position_1S, longest + beyond_BS.clamp(0, after - 1))
        both_BSH = torch.cat([slots_BLH, self.after_RH.expand(len(items_BL), -1, -1)], dim=1)
        return both_BSH.gather(1, source_BS[:, :, None].expand_as(both_BSH))

    def _decode(self, tokens_BSH: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The residual stream [B, S, H] after each of `layers`, before the final norm."""
        if self.settings.shared_prompt:
            return self.decoder(tokens_BSH, layers, self.decoder.remember(self.before_PH))
        before_BPH = self.before_PH.expand(len(tokens_BSH), -1, -1)
        states = self.decoder(torch.cat([before_BPH, tokens_BSH], dim=1), layers)
        return [state_BTH[:, len(self.before_PH) :] for state_BTH in states]

    def for_inference(self) -> Self:
        """Fold LoRA into the weights, and let `represent` run the layers in their fastest form. Returns itself.

        Done once and for good: afterwards the recommender is one without LoRA (`tuned` is None). Matrices held in
        bfloat16 are rounded to it once more, with LoRA in them: h_u moves by about what bfloat16 costs anyway (0.8 %
        of its largest number in a trained one of four layers of width 32).
        """
        if isinstance(self.settings.tuned, LoraSettings):
            everything = range(1, self.settings.layers + 1)
            folded = LayerStack(plain_decoder(self.decoder, self.architecture, everything))
            self.decoder = folded.requires_grad_(False)
            self.settings = replace(self.settings, tuned=None, quantization="none")
        self.decoder.fuse()
        return super().for_inference()

    def to_config(self) -> dict[str, Any]:
        """The choices, the decoder's architecture and the sizes of what comes from elsewhere."""
        return {
            "recommender": asdict(self.settings),
            "decoder": self.architecture.to_dict(),
            "before": len(self.before_PH),
            "after": len(self.after_RH),
            "n_items": self.n_items,
            "item_width": self.items_VD.shape[1],
            "in_bfloat16": self.decoder.in_bfloat16,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture of `to_config`; no backbone is needed, for the weights hold its layers too."""
        from transformers import AutoConfig

        decoder = empty_decoder(AutoConfig.for_model(**config["decoder"]))
        width = decoder.config.hidden_size
        recommender = cls(
            LLMRecommenderConfig.from_dict(config["recommender"]),
            decoder,
            torch.zeros(config["before"], width),
            torch.zeros(config["after"], width),
            torch.zeros(config["n_items"] + 1, config["item_width"]),
        )
        if config["in_bfloat16"]:
            recommender.decoder.hold_in_bfloat16()
        return recommender


def _refuse_quantization(config: LLMRecommenderConfig) -> None:
    if config.quantization != "none":
        raise ValueError("Only a backbone's layers are quantised, as they are read: set quantization to none.")
