"""The E4SRec-type recommender: a language model's layers read a user's history, a dot product ranks the items.

Belongs here: the whole model, in the order of its forward pass, and what it is made from. Not here: its configuration
(`llm_config.py`), reading layers from disk (`decoder.py`) and running them (`layer_stack.py`), what it trains on
(`next_item_examples.py`), what a student learns from a teacher (`distillation.py`).

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
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.backbone.decoder import (
    empty_decoder,
    load_decoder,
    load_tokenizer,
    random_decoder,
    read_architecture,
    read_token_rows,
    with_layers,
)
from models.backbone.layer_stack import LayerStack
from models.backbone.lora import add_lora, plain_decoder
from models.backbone.quantization import store_in_full
from models.device import best_device
from models.losses.sampled import training_cross_entropy
from models.recommender import EmbeddingRecommender, inference
from models.sequences import Sequences
from models.slmrec.config import LLMRecommenderConfig, LoraSettings
from models.slmrec.examples import NextItemExamples
from models.slmrec.prompt import prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LLMRecommender", "LLMRecommenderConfig", "LoraSettings", "NextItemExamples"]

USERS_AT_ONCE = 64
"""Users that are represented in one pass: few enough for their histories to be of like length."""


class LLMRecommender(EmbeddingRecommender):
    """See the module's docstring; made by one of the `from_` methods, or read back by `checkpoint.load_recommender`.

    Args:
        config: the choices.
        decoder: of `config.layers` layers; they and its norm are taken over.
        before_PH, after_RH: the token table's rows of the prompt before and after the items.
        items_VD: the item embeddings [V + 1, D]; row 0 is padding.
    """

    kind: ClassVar[str] = "llm"

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
        longest = len(before_PH) + config.max_items + len(after_RH)
        if longest > architecture.max_position_embeddings:
            raise ValueError(
                f"The prompt and {config.max_items} items make {longest} tokens, but the backbone reads "
                f"{architecture.max_position_embeddings}: lower max_items, or raise the backbone's context."
            )
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
        """A recommender with fresh adapters on the backbone in `directory`, on the `best_device`.

        Args:
            config: the choices.
            directory: of `backbone.build_backbone`.
            items_VD: float [V + 1, D], the item embeddings (SASRec's item table); row 0 is padding.
            seed: fixes the adapters' first weights.
            layers: which of the backbone's, from 1 (`layer_choice.choose_layers`); the first ones by default.

        Raises:
            ValueError: if the backbone has no such layers, or the prompt and the items don't fit into its context.
        """
        decoder = load_decoder(directory, config.chosen_layers(layers), config.quantization)
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
        read slots of that adapter). Nothing is shared: the teacher stays as it is.

        Args:
            config: the choices.
            teacher: the trained recommender.
            seed: fixes LoRA's first weights.
            layers: which of the teacher's, from 1; the first ones by default.

        Raises:
            ValueError: if the teacher has no such layers, or another objective, or the config wants quantisation.
        """
        _refuse_quantization(config)
        numbers = config.chosen_layers(layers)
        if config.objective != teacher.settings.objective:
            raise ValueError("A recommender made from a teacher needs its objective: the prompt is cut by it.")
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
        token_size = self.before_PH.square().mean().sqrt()
        nn.init.zeros_(adapter.bias)
        return _spread(adapter, token_size / self._item_norm()).to(self.items_VD)

    def new_output_adapter(self) -> nn.Linear:
        """From state to item embedding. It starts with scores of about unit variance: a loss near log V (ours)."""
        adapter = nn.Linear(self.architecture.hidden_size, self.items_VD.shape[1], bias=False)
        return _spread(adapter, self.architecture.hidden_size**-0.5 / self._item_norm()).to(self.items_VD)

    def _item_norm(self) -> Tensor:
        """Root mean square of the item embeddings' lengths."""
        return self.items_VD[1:].detach().square().sum(1).mean().sqrt().clamp(min=1e-6)

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
            (state_BH,) = self._last_states(items_BL, lengths_B, (self.settings.layers,))
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
        self, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int], *, normed: bool = True
    ) -> list[Tensor]:
        """For each of `layers` (1..M) its states [N, H] at the positions that have a target.

        N = B with the objective `last`; with `all_positions` every item slot, users one after another. `normed`
        applies the final norm to every layer's state alike; without it, all are the residual stream as it is. (The
        released code takes the last one normed and the others not, which mixes two scales.) An output adapter reads
        normed states: `self.norm` turns the others into them.
        """
        if self.settings.objective == "last":
            return self._last_states(items_BL, lengths_B, layers, normed=normed)
        users_N, slots_N = items_BL.nonzero(as_tuple=True)
        return self._read(items_BL, lengths_B, layers, users_N, slots_N, normed=normed)

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

    def _last_states(
        self, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int], *, normed: bool = True
    ) -> list[Tensor]:
        """For each of `layers` the states [B, H] of each user's last token."""
        users_B = torch.arange(len(items_BL), device=items_BL.device)
        last_B = lengths_B + len(self.after_RH) - 1
        return self._read(items_BL, lengths_B, layers, users_B, last_B, normed=normed)

    def _read(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        layers: Sequence[int],
        users_N: Tensor,
        tokens_N: Tensor,
        *,
        normed: bool,
    ) -> list[Tensor]:
        states = self._decode(self._tokens(items_BL, lengths_B), layers)
        read = [state_BSH[users_N, tokens_N] for state_BSH in states]
        return [self.norm(state_NH) for state_NH in read] if normed else read

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
        """Fold LoRA into the weights: the same function with fewer maps to compute. Returns itself.

        Done once and for good: afterwards the recommender is one without LoRA (`tuned` is None). Matrices held in
        bfloat16 are rounded to it once more, with LoRA in them: h_u moves by about what bfloat16 costs anyway (0.8 %
        of its largest number in a trained one of four layers of width 32).
        """
        if isinstance(self.settings.tuned, LoraSettings):
            everything = range(1, self.settings.layers + 1)
            folded = LayerStack(plain_decoder(self.decoder, self.architecture, everything))
            self.decoder = folded.requires_grad_(False).train(self.training)
            self.settings = replace(self.settings, tuned=None, quantization="none")
        return self

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


@torch.no_grad()
def _spread(adapter: nn.Linear, deviation: Tensor) -> nn.Linear:
    """The adapter with weights of this standard deviation, drawn on the CPU: the same ones on every device."""
    nn.init.normal_(adapter.weight).mul_(deviation.to(adapter.weight.device))
    return adapter
