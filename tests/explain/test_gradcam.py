"""Grad-CAM against captum, on the bundled model, and the sanity check with random weights."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from dermseg.apps.cli.main import main
from dermseg.data.synthetic import synthesize
from dermseg.errors import UsageError
from dermseg.explain.gradcam import grad_cam
from dermseg.explain.network import feature_layers
from dermseg.export.rebuild import rebuild
from dermseg.images import load_image
from dermseg.inference.predictor import load_model
from dermseg.models.blocks import init_weights

MODEL = load_model()
NETWORK = rebuild(MODEL.bundle)
X = torch.from_numpy(MODEL.prepare(synthesize(7, (240, 320))[0])[None])


def test_network_rebuilt_from_the_bundle_computes_the_same() -> None:
    with torch.no_grad():
        ours = NETWORK(X).numpy()
    assert np.abs(ours - MODEL.session(X.numpy())).max() < 1e-3


@pytest.mark.parametrize("layer", list(feature_layers(NETWORK)))
def test_equals_captum(layer: str) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    with torch.no_grad():
        inside = NETWORK(X)[0, 0] > 0
    score = lambda x: NETWORK(x)[:, 0][:, inside].sum(dim=1)  # noqa: E731
    oracle = captum.LayerGradCam(score, feature_layers(NETWORK)[layer])
    expected = oracle.attribute(X, relu_attributions=True)[0, 0].detach().numpy()
    ours = grad_cam(NETWORK, X, layer)
    assert ours.shape == expected.shape
    assert np.allclose(ours, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.max())))


def test_random_weights_give_another_map() -> None:
    """Adebayo et al. 2018 (arXiv:1810.03292): what survives random weights explains nothing."""
    layer = next(iter(feature_layers(NETWORK)))
    trained = grad_cam(NETWORK, X, layer, np.ones(X.shape[2:], bool))
    correlations = []
    for seed in range(5):
        random = copy.deepcopy(NETWORK)
        torch.manual_seed(seed)
        init_weights(random)
        cam = grad_cam(random, X, layer, np.ones(X.shape[2:], bool))
        correlations.append(float(spearmanr(trained.ravel(), cam.ravel()).statistic) if cam.any() else 0.0)
    assert abs(np.mean(correlations)) < 0.5


def test_threads_may_share_a_network() -> None:
    """Two people on the dashboard: before, a map was of the other's image, or there was none."""
    layer = next(iter(feature_layers(NETWORK)))
    inputs = [torch.from_numpy(MODEL.prepare(synthesize(seed, (96, 128))[0])[None]) for seed in (7, 8)]
    alone = [grad_cam(NETWORK, x, layer) for x in inputs]
    order = [number % 2 for number in range(32)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: grad_cam(NETWORK, inputs[number], layer), order))
    assert all(
        np.allclose(cam, alone[number], atol=1e-3 * alone[number].max())
        for number, cam in zip(order, together, strict=True)
    )


def test_wrong_layer_and_region_are_refused() -> None:
    with pytest.raises(UsageError, match="no layer 'nowhere'"):
        grad_cam(NETWORK, X, "nowhere")
    with pytest.raises(UsageError, match="region"):
        grad_cam(NETWORK, X, next(iter(feature_layers(NETWORK))), np.ones((3, 3), bool))


def test_images_that_share_a_stem_keep_their_own_maps(tmp_path: Path) -> None:
    for name, seed in (("a.png", 3), ("a.bmp", 4)):
        pixels, _ = synthesize(seed, (96, 128))[:2]
        Image.fromarray(pixels).save(tmp_path / name)
    words = [str(tmp_path / "a.png"), str(tmp_path / "a.bmp"), "-o", str(tmp_path / "out")]
    with suppress(SystemExit):
        main(["explain", *words])
    assert len(list((tmp_path / "out").glob("*.npy"))) == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    (overlay,) = (tmp_path / "out").glob("a.png.*.png")
    shown, photograph = (np.asarray(load_image(path).pixels) for path in (overlay, tmp_path / "a.png"))
    untouched = (shown == photograph).all(axis=2)  # the map is transparent where it is 0
    assert untouched.any(), "the same colours, in the same order"
