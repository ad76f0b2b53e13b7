"""The layers of a decoder built as LLaMA's, in the form in which inference is fastest.

Belongs here: which layers can be put into that form, the form, and a pass through it. Not here: any other architecture,
training, and states between the layers (`layer_stack.py`, which also sees to it that both give the same result).

What saves time against the layers as transformers runs them: one map for queries, keys and values and one for gate and
up; matrices stored column after column and in one piece, by which a few tokens are multiplied faster; rotations and
masks computed once; in the last layer nothing but keys and values for tokens that aren't read. The layers' weights
become views of the fused matrices: names and numbers stay, and nothing is held twice.

Letters: B users, P prompt tokens, S tokens after them, T = P + S, N = B x S, H width, I width of the feed-forward part,
h heads of queries, g heads of keys and as many of values, d width of a head, a = h + 2g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
ROTATIONS = {"default", "linear", "llama3", "yarn"}
"""Those of transformers in which a position's rotation doesn't depend on how many tokens there are."""


def fusable(layers: nn.ModuleList, rotary_emb: nn.Module) -> bool:
    """Whether the layers have LLaMA's parts and no others, plain maps, one precision in full, and such rotations."""
    for layer in layers:
        if any({name for name, _ in layer.get_submodule(part).named_children()} != own for part, own in PARTS.items()):
            return False
        maps = [layer.get_submodule(f"{part}.{name}") for part in PARTS for name in PARTS[part] if "_proj" in name]
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        if not all(type(one) is nn.Linear for one in maps) or not all(
            hasattr(one, "variance_epsilon") for one in norms
        ):
            return False
    precisions = {parameter.dtype for parameter in layers.parameters()}
    return precisions in ({torch.float32}, {torch.float64}) and getattr(rotary_emb, "rope_type", None) in ROTATIONS


class _Room:
    """Memory for all matrices in one piece: with `THP_MEM_ALLOC_ENABLE`, torch has it in huge pages."""

    def __init__(self, layers: nn.ModuleList):
        matrices = [parameter for parameter in layers.parameters() if parameter.ndim == 2]
        self._free = matrices[0].new_empty(sum(one.numel() for one in matrices), requires_grad=False)

    def take(self, rows: int, columns: int) -> Tensor:
        part, self._free = self._free.tensor_split((rows * columns,))
        return part.view(rows, columns)


class _Map(NamedTuple):
    """A linear map: weight [in, out], bias [out] or None."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, room: _Room, *maps: nn.Linear) -> _Map:
        """Several maps of the same input as one; their weights are views of its own from now on."""
        widths = [one.out_features for one in maps]
        weight = room.take(maps[0].in_features, sum(widths))
        for one, columns in zip(maps, weight.split(widths, dim=1), strict=True):
            columns.copy_(one.weight.T)
            one.weight.data = columns.T
        if all(one.bias is None for one in maps):
            return cls(weight, None)
        biases: list[Tensor] = [weight.new_zeros(one.out_features) if one.bias is None else one.bias for one in maps]
        return cls(weight, torch.cat(biases))

    def __call__(self, x_NH: Tensor) -> Tensor:
        return x_NH @ self.weight if self.bias is None else torch.addmm(self.bias, x_NH, self.weight)

    def added_to(self, state_NH: Tensor, x_N: Tensor) -> Tensor:
        """The state plus the map of x."""
        return torch.addmm(state_NH if self.bias is None else state_NH + self.bias, x_N, self.weight)


class _Norm(NamedTuple):
    """RMSNorm: weight [H], and what is added to the mean square."""

    weight: Tensor
    epsilon: float

    def __call__(self, state_NH: Tensor) -> Tensor:
        return rms_norm(state_NH, self.weight.shape, self.weight, self.epsilon)


class _Layer:
    """One layer; takes its weights over."""

    def __init__(self, layer: nn.Module, window: int | None, prompt: tuple[Tensor, Tensor], room: _Room):
        attention: Any = layer.get_submodule("self_attn")
        mlp: Any = layer.get_submodule("mlp")
        norms: Any = (layer.get_submodule(name) for name in ("input_layernorm", "post_attention_layernorm"))
        self.first_norm, self.second_norm = (_Norm(norm.weight, norm.variance_epsilon) for norm in norms)
        self.to_heads = _Map.of(room, attention.q_proj, attention.k_proj, attention.v_proj)
        self.from_heads = _Map.of(room, attention.o_proj)
        self.to_gate_and_up = _Map.of(room, mlp.gate_proj, mlp.up_proj)
        self.down = _Map.of(room, mlp.down_proj)
        self.activation, self.scale, self.window = mlp.act_fn, attention.scaling, window
        self.prompt_1Pxd = torch.cat(prompt, dim=1).transpose(1, 2).contiguous()


class FusedLayers:
    """All layers behind one prompt.

    Args:
        layers: `fusable` ones; their weights become views of the fused matrices.
        windows: of each layer, from `attention_windows`.
        rotary_emb: the decoder's.
        memory: the prompt's keys and values in each layer, both [1, g, P, d].
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        windows: Sequence[int | None],
        rotary_emb: nn.Module,
        memory: Sequence[tuple[Tensor, Tensor]],
    ):
        _, self._key_heads, self._before, self._head_width = memory[0][0].shape
        room = _Room(layers)
        self._layers = [_Layer(*one, room) for one in zip(layers, windows, memory, strict=True)]
        self._grouped = self._layers[0].from_heads.weight.shape[0] != self._key_heads * self._head_width
        self._rotary_emb = rotary_emb
        self._surroundings: dict[int, _Surroundings] = {}

    def last_states(self, tokens_BSH: Tensor, last_B: Tensor) -> Tensor:
        """The residual stream [B, H] after the last layer, not normed, at the token `last_B` (from 0) of each user."""
        users, length, width = tokens_BSH.shape
        if length not in self._surroundings:
            self._surroundings[length] = self._around(tokens_BSH)
        cos_S12d, sin_S12d, masks = self._surroundings[length]
        state_NH, last_N = tokens_BSH.reshape(-1, width), last_B + length * torch.arange(users, device=last_B.device)
        for layer in self._layers:
            heads_BSad = layer.to_heads(layer.first_norm(state_NH)).view(users, length, -1, self._head_width)
            turned_BSx2d = heads_BSad[:, :, : -self._key_heads].unflatten(3, (2, -1))
            swapped_BSx2d = turned_BSx2d.flip(3)
            turned_BSx2d.mul_(cos_S12d).addcmul_(swapped_BSx2d, sin_S12d)
            queries_BShd, own_BSxd = heads_BSad.tensor_split((-2 * self._key_heads,), dim=2)
            seen_BTxd = torch.cat([layer.prompt_1Pxd.expand(users, -1, -1, -1), own_BSxd], dim=1)
            keys_BgTd, values_BgTd = seen_BTxd.transpose(1, 2).chunk(2, dim=1)
            mask = masks[layer.window]
            if layer is self._layers[-1]:
                state_NH, queries_BShd = state_NH[last_N], queries_BShd.flatten(0, 1)[last_N][:, None]
                mask = mask if mask is None else mask[last_B][:, None, None]
            attended_BhSd = scaled_dot_product_attention(
                queries_BShd.transpose(1, 2), keys_BgTd, values_BgTd, mask, scale=layer.scale, enable_gqa=self._grouped
            )
            state_NH = layer.from_heads.added_to(state_NH, attended_BhSd.transpose(1, 2).reshape(len(state_NH), -1))
            gate_NI, up_NI = layer.to_gate_and_up(layer.second_norm(state_NH)).chunk(2, dim=1)
            state_NH = layer.down.added_to(state_NH, layer.activation(gate_NI) * up_NI)
        return state_NH

    def _around(self, tokens_BSH: Tensor) -> _Surroundings:
        length, device = tokens_BSH.shape[1], tokens_BSH.device
        positions_S = torch.arange(self._before, self._before + length, device=device)
        cos_Sd, sin_Sd = (one[0] for one in self._rotary_emb(tokens_BSH[:1], positions_S[None]))
        first_d, second_d = sin_Sd.chunk(2, dim=1)
        sin_S2d = torch.stack([-first_d, second_d], dim=1)  # what is swapped is added to the first half with a minus
        distance_ST = positions_S[:, None] - torch.arange(self._before + length, device=device)
        masks: dict[int | None, Tensor | None] = {}
        for window in {layer.window for layer in self._layers}:
            seen_ST = (distance_ST >= 0) if window is None else (distance_ST >= 0) & (distance_ST < window)
            hidden_ST = torch.zeros_like(seen_ST, dtype=tokens_BSH.dtype).masked_fill(~seen_ST, -torch.inf)
            masks[window] = None if seen_ST.all() else hidden_ST
        return cos_Sd.unflatten(1, (2, -1))[:, None], sin_S2d[:, None], masks


_Surroundings = tuple[Tensor, Tensor, dict[int | None, Tensor | None]]
"""Of S tokens: cosines and signed sines of their rotation, [S, 1, 2, d / 2], and what each of them may not see: a mask
[S, T] for each window, 0 or -inf, None where they see everything."""
