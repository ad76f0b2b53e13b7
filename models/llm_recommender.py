"""The E4SRec-type recommender: a language model's first layers read a user's history, a dot product ranks the items.

Belongs here: the whole model, in the order of its forward pass, its configuration and the examples it trains on. Not
here: where the layers come from (`backbone.py`), what a student learns from a teacher (`distillation.py`).

    [prompt before] [item slots] [prompt after]  ->  adapters and layers  ->  h_u . h_i for every item i

Source: SLMRec (arXiv 2405.17890), section 3, on E4SRec (arXiv 2312.02443). An item slot is the item's frozen ID
embedding through a linear input adapter; h_u is the last token's state through a linear output adapter; the loss is
softmax cross-entropy over the catalogue. Trained: the adapters and LoRA. Frozen: the language model and the item
embeddings.

Letters: B users, L items of the longest history, P prompt tokens before the items, R after them, S = L + R (the tokens
that differ between users), H width of the language model, D width of the item embeddings, V catalogue, N supervised
positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.backbone import empty_decoder, load_decoder
from models.catalogue_loss import catalogue_cross_entropy
from models.prompt import AFTER_ITEMS, BEFORE_ITEMS
from models.recommender import EmbeddingRecommender, inference
from models.sequences import Sequences

if TYPE_CHECKING:
    from transformers import LlamaModel


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters beside the named linear maps of each layer; the values are the released code's.

    Attributes:
        rank, alpha: of the update, which is scaled by alpha / rank.
        dropout: on the update's input, in training.
        targets: names of the layers' linear maps.

    Raises:
        ValueError: on a value out of range.
    """

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"LoRA's rank and alpha must be greater than 0, not {self.rank} and {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA's dropout must be in [0, 1), not {self.dropout}.")
        if not self.targets:
            raise ValueError("LoRA needs at least one target; set lora to null to train the adapters alone.")


@dataclass(frozen=True)
class LLMRecommenderConfig:
    """The recommender on top of a backbone.

    Attributes:
        layers: how many of the backbone's first layers are used (the paper: 8 in the teacher, 4 in the student).
        objective: what is supervised.
            `last` is the paper: one target a user. The response words stand after the items; the last one is read.
            `all_positions` is ours: the response words stand before the items, so that each item slot, which sees
            only what is before it, predicts the next item in the same pass; the last slot represents the user.
        max_items: the latest items of a history that are read (30 in the released code).
        lora: the low-rank adapters; None leaves the layers as they are and trains the two item adapters alone.
        shared_prompt: run the prompt before the items once a batch, its keys and values serving every user,
            instead of once a user. The same result: the prompt sees no item. (In training, LoRA's dropout
            then falls on the prompt once a batch.)

    Raises:
        ValueError: on a value out of range.
    """

    layers: int
    objective: Literal["last", "all_positions"] = "last"
    max_items: int = 30
    lora: LoraSettings | None = LoraSettings()
    shared_prompt: bool = True

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, not {self.layers}.")
        if self.objective not in ("last", "all_positions"):
            raise ValueError(f"objective must be last or all_positions, not {self.objective!r}.")
        if self.max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {self.max_items}.")


class LLMRecommender(EmbeddingRecommender):
    """See the module's docstring; made by `from_backbone`, or read back by `checkpoint.load_recommender`.

    Args:
        config: the choices above.
        decoder: the first `config.layers` layers of a LLaMA-type model; taken over, without its token table.
        before_PH, after_RH: the token table's rows of the prompt before and after the items.
        items_VD: the frozen item embeddings [V + 1, D]; row 0 is padding.
    """

    kind: ClassVar[str] = "llm"

    def __init__(
        self,
        config: LLMRecommenderConfig,
        decoder: LlamaModel,
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
        self.items_VD = nn.Buffer(items_VD)
        self.input_adapter = self.new_input_adapter()
        # The decoder returns its last state after the final norm, the others before it. With the norm kept
        # outside, all of them come out alike, and `_read` applies it to each.
        self.norm = decoder.norm.requires_grad_(False)
        decoder.norm = nn.Identity()  # type: ignore[assignment]  # see above
        del decoder.embed_tokens
        self.decoder = _with_lora(decoder.requires_grad_(False), config.lora)
        self.output_adapter = self.new_output_adapter()

    @classmethod
    def from_backbone(
        cls, config: LLMRecommenderConfig, directory: Path, items_VD: Tensor, *, seed: int
    ) -> LLMRecommender:
        """A recommender with fresh adapters on the backbone in `directory`.

        Args:
            config: the choices above.
            directory: of `backbone.build_backbone`.
            items_VD: float [V + 1, D], the item embeddings (SASRec's item table); row 0 is padding.
            seed: fixes the adapters' first weights.

        Raises:
            ValueError: if the backbone has too few layers, or the prompt and the items don't fit into its
                context.
        """
        if items_VD.ndim != 2 or not torch.isfinite(items_VD).all() or not items_VD[1:].any():
            raise ValueError(
                "The item embeddings must be a finite matrix with a row an item; check the item_embeddings."
            )
        decoder, tokenizer = load_decoder(directory, config.layers)
        before = tokenizer.encode(BEFORE_ITEMS).ids
        after = tokenizer.encode(AFTER_ITEMS, add_special_tokens=False).ids
        if config.objective == "all_positions":
            before, after = before + after, []
        table = decoder.embed_tokens.weight.detach()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(
                config,
                decoder,
                table[torch.tensor(before)].clone(),
                table[torch.tensor(after, dtype=torch.int64)].clone(),
                items_VD.detach().to(table.dtype).clone(),
            )

    def new_input_adapter(self) -> nn.Linear:
        """From item embedding to slot. It starts with slots of the size of the prompt's tokens (ours)."""
        adapter = nn.Linear(self.items_VD.shape[1], self.architecture.hidden_size)
        token_size = self.before_PH.square().mean().sqrt()
        nn.init.zeros_(adapter.bias)
        return _spread(adapter, token_size / self._item_norm())

    def new_output_adapter(self) -> nn.Linear:
        """From state to item embedding. It starts with scores of about unit variance: a loss near log V (ours)."""
        adapter = nn.Linear(self.architecture.hidden_size, self.items_VD.shape[1], bias=False)
        return _spread(adapter, self.architecture.hidden_size**-0.5 / self._item_norm())

    def _item_norm(self) -> Tensor:
        """Root mean square of the item embeddings' lengths."""
        return self.items_VD[1:].square().sum(1).mean().sqrt().clamp(min=1e-6)

    def forward(
        self, items: Tensor, lengths: Tensor, targets: Tensor, share: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """A batch of `NextItemExamples`: `ce`, which is L_ce, and `loss`, which is L_ce times the batch's share."""
        (state_NH,) = self.supervised_states(items, lengths, (self.settings.layers,))
        user_ND = self.output_adapter(state_NH).to(self.items_VD.dtype)  # in full precision under autocast too
        ce = catalogue_cross_entropy(user_ND, self.items_VD, targets)
        return {"loss": ce * share, "ce": ce}

    def represent(self, histories: Sequences) -> Tensor:
        """float32 [B, D] on the CPU: h_u of each user, from the latest `max_items` items.

        Raises:
            ValueError: on an empty history or an unknown item.
        """
        self.check_histories(histories)
        if not histories.lengths.all():
            raise ValueError("A history without items can't be represented; recommend the most popular items there.")
        recent = histories.tail(self.settings.max_items)
        device = self.items_VD.device
        with inference(self):
            items_BL = torch.from_numpy(recent.padded()).to(device)
            lengths_B = torch.from_numpy(recent.lengths).to(device)
            (state_BH,) = self._last_states(items_BL, lengths_B, (self.settings.layers,))
            return self.output_adapter(state_BH).float().cpu()

    def item_table(self) -> Tensor:
        """[V + 1, D]: the frozen item embeddings."""
        return self.items_VD

    def supervised_states(self, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """For each of `layers` (1..M) its states [N, H] at the positions that have a target.

        N = B with the objective `last`; with `all_positions` every item slot, users one after another. The
        final norm is applied to every layer's state alike (the released code does so to the last only, which
        mixes two scales).
        """
        if self.settings.objective == "last":
            return self._last_states(items_BL, lengths_B, layers)
        users_N, slots_N = items_BL.nonzero(as_tuple=True)
        return self._read(items_BL, lengths_B, layers, users_N, slots_N)

    def _last_states(self, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """For each of `layers` the states [B, H] of each user's last token."""
        users_B = torch.arange(len(items_BL), device=items_BL.device)
        return self._read(items_BL, lengths_B, layers, users_B, lengths_B + len(self.after_RH) - 1)

    def _read(
        self, items_BL: Tensor, lengths_B: Tensor, layers: Sequence[int], users_N: Tensor, tokens_N: Tensor
    ) -> list[Tensor]:
        states = self._decode(self._tokens(items_BL, lengths_B), layers)
        return [self.norm(state_BSH[users_N, tokens_N]) for state_BSH in states]

    def _tokens(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, S, H]: each user's item slots, the prompt after them at once, and then padding.

        Padding comes last and attention looks back only, so no real token sees it and positions have no gap.
        """
        slots_BLH = self.input_adapter(self.items_VD[items_BL])
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
        before_BPH = self.before_PH.expand(len(tokens_BSH), -1, -1)
        if not self.settings.shared_prompt:
            hidden = self._run(torch.cat([before_BPH, tokens_BSH], dim=1), layers)
            return [state_BTH[:, len(self.before_PH) :] for state_BTH in hidden]
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self.architecture)
        self._run(before_BPH[:1], layers, cache)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(tokens_BSH), -1, -1, -1)
            layer.values = layer.values.expand(len(tokens_BSH), -1, -1, -1)
        return self._run(tokens_BSH, layers, cache)

    def _run(self, tokens_BTH: Tensor, layers: Sequence[int], cache: Any = None) -> list[Tensor]:
        """The layers on tokens that follow those in the cache; each sees itself and what is before it."""
        output = self.decoder(
            inputs_embeds=tokens_BTH,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=list(layers),
        )
        return [output.hidden_states[layer] for layer in layers]

    def to_config(self) -> dict[str, Any]:
        """The choices, the decoder's architecture and the sizes of what comes from elsewhere."""
        return {
            "recommender": asdict(self.settings),
            "decoder": self.architecture.to_dict(),
            "before": len(self.before_PH),
            "after": len(self.after_RH),
            "n_items": self.n_items,
            "item_width": self.items_VD.shape[1],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture of `to_config`; no backbone is needed, for the weights hold its layers too."""
        from transformers import AutoConfig

        choices = dict(config["recommender"])
        if choices["lora"] is not None:
            choices["lora"] = LoraSettings(**{**choices["lora"], "targets": tuple(choices["lora"]["targets"])})
        decoder = empty_decoder(AutoConfig.for_model(**config["decoder"]))
        width = decoder.config.hidden_size
        return cls(
            LLMRecommenderConfig(**choices),
            decoder,
            torch.zeros(config["before"], width),
            torch.zeros(config["after"], width),
            torch.zeros(config["n_items"] + 1, config["item_width"]),
        )


class NextItemExamples:
    """What an `LLMRecommender` trains on (`training.Examples`): one row a sequence of at least two items.

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
        self.all_positions = config.objective == "all_positions"
        self.lengths = self.sequences.lengths - 1
        self.mean_targets = float(self.lengths.mean()) if self.all_positions else 1.0

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows' histories, padded on the right, and their targets.

        Returns:
            `items` int64 [B, L]; `lengths` [B]; `targets` [N], in the order of `supervised_states`; `share`, the
            targets over those of as many average rows, by which a position counts the same in every batch (as in
            `sasrec.py`).
        """
        sequences, lengths = self.sequences.take(rows), self.lengths[rows]
        items_BL = sequences.padded()
        last_B = sequences.values[sequences.offsets[1:] - 1]
        history_BL = np.where(np.arange(items_BL.shape[1] - 1) < lengths[:, None], items_BL[:, :-1], 0)
        targets_N = items_BL[:, 1:][history_BL > 0] if self.all_positions else last_B
        return {
            "items": torch.from_numpy(history_BL),
            "lengths": torch.from_numpy(lengths),
            "targets": torch.from_numpy(targets_N),
            "share": torch.tensor(len(targets_N) / (len(rows) * self.mean_targets), dtype=torch.float32),
        }


def _with_lora(decoder: nn.Module, settings: LoraSettings | None) -> nn.Module:
    if settings is None:
        return decoder
    from peft import LoraConfig, inject_adapter_in_model

    return inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
        ),
        decoder,
    )


@torch.no_grad()
def _spread(adapter: nn.Linear, deviation: Tensor) -> nn.Linear:
    """The adapter with weights drawn from a normal distribution of this standard deviation."""
    nn.init.normal_(adapter.weight).mul_(deviation)
    return adapter
