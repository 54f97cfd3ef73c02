"""GPT-2 in plain torch, as one writes it there: what our training step and our decoding are measured against.

Weights come from a state dict of minillm.models.GPT, so that both begin alike.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the names are those of minillm's blocks."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def queries_keys_values(self, x: Any) -> tuple[Any, Any, Any]:
        B, T, width = x.shape
        parts = self.in_proj(self.norm1(x)).split(width, dim=2)
        q, k, v = (t.view(B, T, self.heads, width // self.heads).transpose(1, 2) for t in parts)  # (B, heads, T, D)
        return q, k, v

    def rest(self, x: Any, y: Any) -> Any:
        """x (B, T, width) with what attention found, y (B, heads, T, D), and the mlp."""
        x = x + self.out_proj(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    def forward(self, x: Any) -> Any:
        q, k, v = self.queries_keys_values(x)
        return self.rest(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))


class TorchGPT(nn.Module):
    def __init__(self, vocab_size: int, context: int, layers: int, heads: int, width: int):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab_size, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def load(self, weights: dict[str, Any]) -> TorchGPT:
        """Weights of minillm's GPT (NumPy arrays); returns self."""
        renamed = {"attention.in_proj_": "in_proj.", "attention.out_proj.": "out_proj.", "mlp.0.": "up.",
                   "mlp.2.": "down."}  # fmt: skip
        state = {}
        for name, array in weights.items():
            for old, new in renamed.items():
                name = name.replace(old, new)
            state[name] = torch.from_numpy(array.copy())
        self.load_state_dict(state)
        return self

    def logits(self, x: Any) -> Any:
        return F.linear(self.norm(x), self.token.weight)

    def forward(self, ids: Any, targets: Any) -> Any:
        """The mean loss of the next tokens: ids, targets (B, T)."""
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.logits(x)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))

    def new_cache(self) -> Any:
        """Keys and values of every layer, (layers, 2, 1, heads, context, D)."""
        (context, width), heads = self.position.weight.shape, self.blocks[0].heads
        like = self.position.weight
        return like.new_zeros(len(self.blocks), 2, 1, heads, context, width // heads)

    def next_token(self, ids: Any, place: Any, cache: Any) -> Any:
        """The likeliest token behind ids (1, 1), which stands at place (1,): an index on the GPU, so that a compiled
        step serves all places. All of the cache is read, what lies behind `place` masked."""
        x = self.token(ids) + self.position(place)
        seen = (torch.arange(cache.shape[4], device=ids.device) <= place)[None, None, None]
        for i, block in enumerate(self.blocks):
            q, k, v = block.queries_keys_values(x)
            keys, values = cache[i, 0], cache[i, 1]
            keys.index_copy_(2, place, k)
            values.index_copy_(2, place, v)
            x = block.rest(x, F.scaled_dot_product_attention(q, keys, values, attn_mask=seen))
        return self.logits(x).argmax(-1)


def training_step(model: TorchGPT, device: str, compiled: bool, backend: str) -> Any:
    """A function (ids, targets) -> loss before the step: bfloat16 by autocast, clipped to norm 1, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model, dynamic=False, backend=backend) if compiled else model
    parameters = list(model.parameters())

    def step(ids: Any, targets: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    return step


def decode(model: TorchGPT, prompt: Any, count: int, compiled: bool, backend: str) -> Any:
    """A function () -> `count` tokens (1, count) behind prompt (1, T), the likeliest each time."""
    step = model.next_token
    if compiled:
        options = {"mode": "reduce-overhead"} if backend == "inductor" else {"backend": backend}
        step = torch.compile(step, dynamic=False, **options)

    @torch.inference_mode()
    def run() -> Any:
        cache, found = model.new_cache(), []
        places = torch.arange(prompt.shape[1] + count, device=prompt.device)
        token = prompt[:, :1]
        for t in range(prompt.shape[1] + count - 1):
            token = step(token, places[t : t + 1], cache).clone()
            if t + 1 < prompt.shape[1]:
                token = prompt[:, t + 1 : t + 2]
            else:
                found.append(token)
        return torch.cat(found, 1)

    return run
