"""Our UNet++ against MONAI's BasicUNetPlusPlus with the same weights.

The two differ in what they upsample with, so the widths are those at which both mean the same: MONAI keeps
all channels in the transposed convolutions to full resolution and halves them elsewhere; ours gives each
level's width.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from dermseg.models.unetpp import UNetPlusPlus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is in the dev group")

WIDTHS = (4, 4, 8, 16, 32)


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Weights layer by layer; their convolutions before a norm have a bias, which is made 0."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    pairs = zip(
        (m for m in ours.modules() if isinstance(m, kinds)),
        (m for m in theirs.modules() if isinstance(m, kinds)),
        strict=True,
    )
    for mine, other in pairs:
        assert type(mine) is type(other)
        state = mine.state_dict()
        if "bias" not in state:
            state["bias"] = torch.zeros_like(other.bias)
        other.load_state_dict(state)


def test_every_head_gives_what_monai_gives() -> None:
    torch.manual_seed(0)
    ours = UNetPlusPlus(classes=2, widths=WIDTHS, upsample="transposed", dropout=0.0)
    theirs = nets.BasicUNetPlusPlus(
        spatial_dims=2,
        in_channels=3,
        out_channels=2,
        features=(*WIDTHS, WIDTHS[0]),
        deep_supervision=True,
        act=("relu", {"inplace": True}),
        norm="batch",
    )
    for i, level in enumerate(ours.down):
        copy(level, getattr(theirs, f"conv_{i}_0"))
    for name, node in ours.nodes.items():
        copy(nn.Sequential(ours.up[name], node), getattr(theirs, f"upcat_{name}"))
    for name, head in ours.heads.items():
        copy(head, getattr(theirs, f"final_conv_0_{name}"))
    x = torch.randn(2, 3, 32, 48)
    for train in (True, False):
        ours.train(), theirs.train(train)
        with torch.no_grad():
            expected = theirs(x)
            found = ours.train(train)(x) if train else ours.eval().decode_all(ours.encode(x))
        for mine, other in zip(reversed(found), expected, strict=True):
            assert torch.allclose(mine, other, atol=1e-4, rtol=1e-4)


def test_pruning_keeps_what_the_shallow_head_says() -> None:
    torch.manual_seed(0)
    network = UNetPlusPlus(widths=WIDTHS).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        every = network.decode_all(network.encode(x))
        for depth in (1, 2, 3):
            assert torch.equal(network.pruned(depth)(x), every[network.depth - depth])
