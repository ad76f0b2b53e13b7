"""The layers of a decoder as the recommender runs them: one after another, behind a prompt that is remembered.

Belongs here: a pass through the layers, what each token may attend to, and the prompt's keys and values. Not here: how
layers are read from disk (`decoder.py`), the form in which LLaMA's are fastest (`fused_layers.py`), what tokens go in
and which states are read (`slmrec/recommender.py`).

The layers are called one by one, in place of the decoder's own forward pass: so the states between them come out
before the final norm, a remembered prompt goes together with gradient checkpointing, and no token table is needed.
`check_runs` holds both to the same result for each decoder that is loaded.

Letters: B users, P prompt tokens, S tokens after them, H width, h heads of the keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

from models.backbone.architecture import attention_windows
from models.backbone.fused_layers import FusedLayers, fusable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PromptMemory = list[tuple[Tensor, Tensor]]
"""The prompt's keys and values in each layer, both [1, h, P, d] (59 tokens, 4 layers of LLaMA-7B, float32: 7.7 MB)."""


class LayerStack(nn.Module):
    """The layers of a decoder, and its rotary positions; the token table and the final norm stay outside.

    Args:
        decoder: its layers are taken over.
        checkpointing: in training, keep the states between layers only, and compute what is inside them anew for the
            backward pass.
    """

    def __init__(self, decoder: PreTrainedModel, *, checkpointing: bool = False):
        super().__init__()
        layers = decoder.get_submodule("layers")
        assert isinstance(layers, nn.ModuleList)
        self.layers = layers
        self.rotary_emb = decoder.get_submodule("rotary_emb")
        self.windows = attention_windows(decoder.config)
        self._checkpointing = checkpointing
        for flag in ("is_loaded_in_8bit", "is_loaded_in_4bit"):
            setattr(self, flag, getattr(decoder, flag, False))  # by which peft knows bitsandbytes' maps
        self._kept: _KeptPrompt | None = None
        self._may_fuse = False
        self.register_state_dict_post_hook(_apart)

    def forward(self, tokens_BSH: Tensor, wanted: Sequence[int], prompt: PromptMemory | None = None) -> list[Tensor]:
        """The residual stream [B, S, H] after each layer in `wanted` (0 is the input), none of them normed.

        Layers deeper than the deepest wanted are not run. Attention is causal. With `prompt`, from `remember`, the
        tokens come after it: they see all of it, and their positions count on from its end.
        """
        around = _Surroundings(self, tokens_BSH, 0 if prompt is None else prompt[0][0].shape[2])
        state_BSH, kept = tokens_BSH, {0: tokens_BSH}
        with self._precision(tokens_BSH.device):
            for index, layer in enumerate(self.layers[: max(wanted)]):
                call = around.caller(layer, index, _Cache(prompt[index]) if prompt else None)
                if self._checkpointing and self.training and torch.is_grad_enabled():
                    state_BSH = checkpoint(call, state_BSH, use_reentrant=False)
                else:
                    state_BSH = call(state_BSH)
                if index + 1 in wanted:
                    kept[index + 1] = state_BSH
        return [kept[number] for number in wanted]

    def last_states(self, tokens_BSH: Tensor, last_B: Tensor, prompt_PH: Tensor) -> Tensor:
        """The residual stream [B, H] after all layers, not normed, at token `last_B` (from 0) of each user.

        The tokens come after the prompt, as of `forward`. For inference: after `fuse`, in the fastest form there is.
        """
        kept = self._keep(prompt_PH)
        if kept.fused is not None:
            return kept.fused.last_states(tokens_BSH, last_B)
        (state_BSH,) = self(tokens_BSH, (len(self.layers),), kept.memory)
        return state_BSH[torch.arange(len(last_B), device=last_B.device), last_B]

    def fuse(self) -> None:
        """From the next prompt on, let `last_states` use `FusedLayers` where they give these layers' result."""
        self._may_fuse, self._kept = True, None

    def hold_in_bfloat16(self) -> None:
        """Keep the frozen matrices in bfloat16, in half the memory, and run the layers under autocast from now on.

        Autocast rounds frozen matrices to bfloat16 at each call anyway: where a training is in that precision, this
        changes no number of it, and saves the rounding. What is trained, and norms and biases, stay as they are.
        """
        for parameter in self.layers.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point() and not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        self._kept = None

    @property
    def in_bfloat16(self) -> bool:
        """Whether `hold_in_bfloat16` has been called, and nothing undid it."""
        return any(parameter.dtype == torch.bfloat16 for parameter in self.layers.parameters())

    def remember(self, prompt_PH: Tensor) -> PromptMemory:
        """What later tokens need of a prompt.

        In training, or with gradients, it is computed at each call, so that gradients flow through it. Otherwise it is
        computed once and kept until the weights, the prompt, the precision or the device change.
        """
        if self.training or torch.is_grad_enabled():
            return self._compute_memory(prompt_PH)
        return self._keep(prompt_PH).memory

    def _keep(self, prompt_PH: Tensor) -> _KeptPrompt:
        if self._kept is None or not self._kept.still_holds(prompt_PH):
            memory = self._compute_memory(prompt_PH)
            fused = self._fused(prompt_PH, memory) if self._may_fuse else None
            self._kept = _KeptPrompt(self.layers, prompt_PH, memory, fused)
        return self._kept

    @torch.inference_mode(False)  # what it makes takes the place of the layers' weights
    @torch.no_grad()
    def _fused(self, prompt_PH: Tensor, memory: PromptMemory) -> FusedLayers | None:
        """None where the layers can't be fused, or some random tokens come out of it otherwise."""
        device, dtype = memory[0][0].device, memory[0][0].dtype
        if torch.is_autocast_enabled(device.type) or not fusable(self.layers, self.rotary_emb):
            return None
        fused = FusedLayers(self.layers, self.windows, self.rotary_emb, memory)
        generator = torch.Generator().manual_seed(0)
        tokens_2SH = torch.randn(2, 5, prompt_PH.shape[1], generator=generator).to(device, dtype)
        last_2 = torch.tensor([2, 4], device=device)
        (state_2SH,) = self(tokens_2SH, (len(self.layers),), memory)
        expected_2H = state_2SH[torch.arange(2, device=device), last_2]
        difference_2H = fused.last_states(tokens_2SH, last_2) - expected_2H
        return fused if difference_2H.norm() <= 1e-4 * expected_2H.norm() else None

    def train(self, mode: bool = True) -> Self:
        """As for any module; training on makes the kept prompt void."""
        if mode:
            self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # a copy computes its own: its tensors count their changes anew

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None  # a move to another device or precision doesn't count as a change of the tensors
        return super()._apply(fn, recurse)

    def _compute_memory(self, prompt_PH: Tensor) -> PromptMemory:
        around = _Surroundings(self, prompt_PH[None], 0)
        state_1PH, caches = prompt_PH[None], [_Cache() for _ in self.layers]
        with self._precision(prompt_PH.device):
            for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
                state_1PH = around.caller(layer, index, cache)(state_1PH)
                _gather_for_gradients(layer, cache)
        return [cache.kept for cache in caches if cache.kept is not None]

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Autocast where matrices are in bfloat16, since the states that meet them are not; else what is around."""
        return torch.autocast(device.type, torch.bfloat16) if self.in_bfloat16 else nullcontext()


@torch.no_grad()
def check_runs(decoder: PreTrainedModel, *, tolerance: float, tokens: int = 6) -> None:
    """Run random tokens through the decoder's own forward pass, and through a `LayerStack` with half of them as prompt.

    Raises:
        ValueError: if the states differ by more than `tolerance` of their length: the decoder does more than to pass
            states from layer to layer.
    """
    training = decoder.training
    decoder.eval()  # without dropout
    generator = torch.Generator().manual_seed(0)
    tokens_1SH = torch.randn(1, tokens, decoder.config.hidden_size, generator=generator).to(decoder.device)
    expected_1SH = decoder(inputs_embeds=tokens_1SH, use_cache=False).last_hidden_state
    half, stack = tokens // 2, LayerStack(decoder)
    (state_1SH,) = stack(tokens_1SH[:, half:], [len(stack.layers)], stack.remember(tokens_1SH[0, :half]))
    difference_1SH = decoder.get_submodule("norm")(state_1SH) - expected_1SH[:, half:]
    decoder.train(training)
    if not difference_1SH.norm() <= tolerance * expected_1SH[:, half:].norm():
        raise ValueError("its own forward pass does more than to run its layers one after another")


class _Surroundings:
    """What all layers of one pass share: positions and masks of S tokens that stand after `before` others."""

    def __init__(self, stack: LayerStack, tokens_BSH: Tensor, before: int):
        length, device = tokens_BSH.shape[1], tokens_BSH.device
        self._position_ids = torch.arange(before, before + length, device=device)[None]
        self._rotation = stack.rotary_emb(tokens_BSH, self._position_ids)
        self._windows = stack.windows
        self._masks = {window: _mask(window, before, length, device) for window in set(self._windows)}

    def caller(self, layer: nn.Module, index: int, cache: _Cache | None) -> Callable[[Tensor], Tensor]:
        def call(state_BSH: Tensor) -> Tensor:
            after_BSH: Tensor = layer(
                state_BSH,
                attention_mask=self._masks[self._windows[index]],
                position_ids=self._position_ids,
                position_embeddings=self._rotation,
                past_key_values=cache,
                use_cache=cache is not None,
            )
            return after_BSH

        return call


def _mask(window: int | None, before: int, length: int, device: torch.device) -> Tensor | None:
    """bool [1, 1, S, before + S], true where a token may look; None where plain causal attention says the same."""
    total = before + length
    if before == 0 and (window is None or window >= total):
        return None
    distance_ST = torch.arange(before, total, device=device)[:, None] - torch.arange(total, device=device)
    seen_ST = (distance_ST >= 0) if window is None else (distance_ST >= 0) & (distance_ST < window)
    return seen_ST[None, None]


class _Cache:
    """Stands where a layer expects transformers' cache: puts the prompt's keys and values before the layer's own.

    Without a prompt it keeps the layer's own.
    """

    def __init__(self, prompt: tuple[Tensor, Tensor] | None = None):
        self.kept = prompt

    def update(self, keys_BhSd: Tensor, values_BhSd: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        if self.kept is None:
            self.kept = keys_BhSd, values_BhSd
            return self.kept
        keys_1hPd, values_1hPd = (before.expand(len(keys_BhSd), -1, -1, -1) for before in self.kept)
        return torch.cat([keys_1hPd, keys_BhSd], dim=2), torch.cat([values_1hPd, values_BhSd], dim=2)


def _gather_for_gradients(layer: nn.Module, cache: _Cache) -> None:
    """Let a layer whose weights lie in shards gather them for a gradient that comes back through the cache, too.

    For a gradient of what it returns torch does so; of the cache it doesn't know.
    """
    if isinstance(layer, FSDPModule):
        for kept in cache.kept or ():
            if kept.requires_grad:
                kept.register_hook(lambda _: layer.unshard())


class _KeptPrompt:
    """A prompt's memory, whatever else is made from it and the layers, and all of these as they were then."""

    def __init__(self, layers: nn.Module, prompt_PH: Tensor, memory: PromptMemory, fused: FusedLayers | None):
        self.memory, self.fused = memory, fused
        self._prompt_PH = prompt_PH
        tables: list[dict[str, Any]] = []
        for part in layers.modules():
            tables += filter(None, (part._modules, part._parameters, part._buffers))  # noqa: SLF001
        self._tables, self._sizes = tables, [len(table) for table in tables]
        self._places = [(table, name, one) for table in tables for name, one in table.items()]
        self._tensors = [prompt_PH, *layers.parameters(), *layers.buffers()]
        self._versions = _versions_of(self._tensors)

    def still_holds(self, prompt_PH: Tensor) -> bool:
        """Asked at every request: going through the modules anew would take longer than one of their layers."""
        return (
            prompt_PH is self._prompt_PH
            and list(map(len, self._tables)) == self._sizes
            and all(place.get(name) is one for place, name, one in self._places)
            and _versions_of(self._tensors) == self._versions
        )


def _versions_of(tensors: list[Tensor]) -> list[object]:
    """Changes when one of the tensors is written to, and with the precision that autocast asks for."""
    device = tensors[0].device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return [autocast, *(tensor._version for tensor in tensors)]  # noqa: SLF001 (torch offers no other counter)


def _apart(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
    """In a state dict each tensor has memory of its own again, for files hold no parts of a larger one."""
    for name, tensor in state.items():
        if name.startswith(prefix) and tensor.nbytes < tensor.untyped_storage().nbytes():
            state[name] = tensor.clone(memory_format=torch.contiguous_format)
