"""A Swin in torch as OpenMMLab builds it, written down anew: its names, its order, its index.

Patches are merged by `nn.Unfold`; the relative position index is a sum of two sequences, flipped.
Windows divide the grid, and the last grid is one window.
"""

import torch
from torch import nn
from torch.nn import functional


class _Attention(nn.Module):
    def __init__(self, channels, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        side = 2 * window - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(side * side, heads))
        self.register_buffer("relative_position_index", position_index(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x, mask):
        """[B * n, N, C], float [n, N, N] or None -> [B * n, N, C]."""
        rows, tokens, channels = x.shape
        parts = self.qkv(x).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:  # [rows, 1, N, N]
            bias = bias + mask.repeat(rows // len(mask), 1, 1)[:, None]
        out = functional.scaled_dot_product_attention(
            *parts, attn_mask=bias.expand(rows, -1, -1, -1)
        )
        return self.proj(out.transpose(1, 2).reshape(rows, tokens, channels))


def position_index(window):
    """As OpenMMLab computes it: int64 [N, N]."""
    rows = torch.arange(0, (2 * window - 1) * window, 2 * window - 1)
    steps = (rows[:, None] + torch.arange(window)[None, :]).reshape(1, -1)
    return (steps + steps.T).flip(1).contiguous()


class _Shifted(nn.Module):
    def __init__(self, channels, heads, window, shift):
        super().__init__()
        self.window, self.shift = window, shift
        self.w_msa = _Attention(channels, heads, window)

    def forward(self, x):
        shift = self.shift if x.shape[1] > self.window else 0
        mask = None
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
            line = torch.arange(x.shape[1])
            part = (line >= x.shape[1] - self.window).int() + (line >= x.shape[1] - shift).int()
            regions = self._cut((3 * part[:, None] + part[None, :])[None, ..., None])[..., 0]
            mask = -100.0 * (regions[:, :, None] != regions[:, None, :])
        batch, size, _, channels = x.shape
        n = size // self.window
        out = self.w_msa(self._cut(x), mask).view(batch, n, n, self.window, self.window, channels)
        return out.transpose(2, 3).reshape(x.shape).roll((shift, shift), (1, 2))

    def _cut(self, x):
        """[B, H, W, C] -> windows [B * n, N, C]."""
        w, (batch, size, _, channels) = self.window, x.shape
        x = x.reshape(batch, size // w, w, size // w, w, channels).transpose(2, 3)
        return x.reshape(-1, w * w, channels)


class _Block(nn.Module):
    def __init__(self, channels, heads, window, shift):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _Shifted(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        wide = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Dropout())
        self.ffn = nn.Module()
        self.ffn.layers = nn.Sequential(wide, nn.Linear(4 * channels, channels), nn.Dropout())

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.ffn.layers(self.norm2(x))


class _Merging(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.sampler = nn.Unfold(kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x):
        batch, size, _, _ = x.shape
        x = self.sampler(x.permute(0, 3, 1, 2)).transpose(1, 2)  # [B, H * W / 4, 4 * C]
        return self.reduction(self.norm(x)).view(batch, size // 2, size // 2, -1)


class _Stage(nn.Module):
    def __init__(self, channels, depth, heads, window, last):
        super().__init__()
        shifts = [window // 2 if index % 2 else 0 for index in range(depth)]
        self.blocks = nn.ModuleList(_Block(channels, heads, window, shift) for shift in shifts)
        self.downsample = None if last else _Merging(channels)


class _Backbone(nn.Module):
    def __init__(self, embed_dim, depths, num_heads, window, norms):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.projection = nn.Conv2d(3, embed_dim, 4, 4)
        self.patch_embed.norm = nn.LayerNorm(embed_dim)
        last = len(depths) - 1
        self.stages = nn.ModuleList(
            _Stage(embed_dim << i, depth, heads, window, i == last)
            for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
        )
        for i in norms:
            self.add_module(f"norm{i}", nn.LayerNorm(embed_dim << i))
        self.final = f"norm{last}"

    def forward(self, x):
        """[B, 3, S, S] -> [B, H, W, C], after the last norm where there is one."""
        x = self.patch_embed.norm(self.patch_embed.projection(x).permute(0, 2, 3, 1))
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
            x = stage.downsample(x) if stage.downsample else x
        norm = getattr(self, self.final, None)
        return norm(x) if norm else functional.layer_norm(x, x.shape[-1:])


class Classifier(nn.Module):
    """The image classifier; its `backbone` is the trunk.

    Args:
        model: a `SwinConfig`.
        norms: stages that have a norm behind them; by default the last alone, and a detector has
            others.
    """

    def __init__(self, model, norms=None):
        super().__init__()
        norms = (len(model.depths) - 1,) if norms is None else norms
        self.backbone = _Backbone(
            model.embed_dim, model.depths, model.num_heads, model.window, norms
        )
        self.head = nn.Module()
        self.head.fc = nn.Linear(model.channels(-1), model.num_classes)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        self.eval()

    @torch.inference_mode()
    def forward(self, images):
        """NumPy [B, S, S, 3] -> logits [B, K], features [B, C]."""
        features = self.backbone(torch.from_numpy(images).permute(0, 3, 1, 2)).mean((1, 2))
        return self.head.fc(features).numpy(), features.numpy()
