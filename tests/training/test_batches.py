from __future__ import annotations

import numpy as np
import torch

from dermseg.data.augment import Augmentation
from dermseg.data.cache import Cache
from dermseg.training.batches import Batches, Source, epoch_order


def cache(n: int, size: int = 16) -> Cache:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 255, (n, size, size, 3), np.uint8)
    return Cache(images, images[..., 0], tuple(str(i) for i in range(n)))


def test_every_image_is_seen_equally_often_when_an_epoch_takes_a_part() -> None:
    sources = [Source(cache(10), per_epoch=4), Source(cache(3))]
    seen = np.concatenate([epoch_order(sources, seed=1, epoch=e) for e in range(5)])
    for source, n, times in ((0, 10, 2), (1, 3, 5)):
        positions = seen[seen[:, 0] == source, 1]
        assert np.bincount(positions, minlength=n).tolist() == [times] * n


def test_batches_do_not_depend_on_threads_or_on_where_an_epoch_is_entered() -> None:
    sources = [Source(cache(9)), Source(cache(5))]

    def run(**options: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(Batches(sources, Augmentation(), seed=3, epoch=2, image_size=24, batch_size=4, **options))

    whole, threaded, late = run(workers=1), run(workers=3, ahead=2), run(start_step=1)
    assert len(whole) == 3
    for a, b in (*zip(whole, threaded, strict=True), *zip(whole[1:], late, strict=True)):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert whole[0][0].shape == (4, 3, 24, 24)
    assert whole[0][1].shape == (4, 1, 24, 24)
