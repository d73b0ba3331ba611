"""What is wrong with a configuration, found before any work starts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from dermseg.data.cache import cache_key, check_room
from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import ConfigError, DataError, ModelError
from dermseg.models import build_model, tiny_vit
from dermseg.models.encoders import VARIANTS, find_imagenet_weights
from dermseg.training.config import ModelConfig, RunConfig, TrainingConfig, expand
from dermseg.training.device import pick_device
from dermseg.training.distributed import World
from dermseg.training.losses import build_loss
from dermseg.training.plugins import build_augmentation
from dermseg.training.rows import select_rows
from dermseg.training.start import find_start
from dermseg.training.step import train_mode
from dermseg.training.targets import make_target
from dermseg.training.teachers import find_teachers
from dermseg.training.validation import Validation


def check_run(config: RunConfig, world: World | None = None) -> int:
    """Look at everything a run needs, without decoding an image or writing a file.

    Returns
    -------
    int
        How many images an epoch takes.

    Raises
    ------
    UsageError
        A GPU is asked for and absent, or an index or split is missing.
    ConfigError
        The architecture, loss, metric or augmentation cannot be built with these settings, the weights to
        start from are of another network, the image size does not fit the network, or a batch cannot be
        shared by the processes.
    DataError
        Images are missing, or have too few masks for the classes; or there is no place for their cache.
    ModelError
        A teacher is missing or damaged.
    MissingExtraError
        The pretrained weights that are asked for are not installed.
    """
    t = config.training
    world = world or World()
    device = pick_device(t.device, world.local_rank)
    _check_loss(config, device)
    build_augmentation(config.augmentation, config.data.cache_size)
    Validation(t.metric, torch.Tensor.float, softmax=False)
    images = _check_sources(config)
    find_teachers(config)
    batches = sorted({(size, min(batch, images)) for size, batch in map(t.at_epoch, range(t.epochs))})
    for _, batch in batches:
        if batch % world.size:
            raise ConfigError(
                f"a batch of {batch} images cannot be shared equally by {world.size} processes",
                hint=f"training.batch_size={max(1, batch // world.size) * world.size}"
                if batch >= world.size
                else "fewer processes, or data.train.0.at_least",
            )
    _check_network(config.model, t, batches)
    if t.compile:
        _check_compiler(device)
    return images


def _check_loss(config: RunConfig, device: torch.device) -> None:
    """It can be built; one of somebody else is tried, so that its mistakes show before images are decoded."""
    model, name = config.model, config.training.loss.name
    loss = build_loss(config.training.loss, model.classes, model.outputs)
    if "." not in name:
        return
    if isinstance(loss, nn.Module):
        loss.to(device)
    size = config.training.at_epoch(0)[0]
    logits = torch.zeros(2, model.classes, size, size, device=device, requires_grad=True)
    masks = torch.zeros(2, model.masks, size, size, device=device)
    masks[..., : size // 2] = 1
    hint = "it is called with logits and target (N, C, H, W) and gives a scalar to differentiate"
    try:
        value = loss(logits, make_target(masks, model.outputs == "softmax"))
        shape = tuple(value.shape)
        if not shape:
            value.backward()
    except Exception as error:  # whatever somebody else's loss does
        raise ConfigError(
            f"training.loss '{name}' fails: {type(error).__name__}: {error}", hint=hint
        ) from error
    if shape:
        raise ConfigError(f"training.loss '{name}' gave shape {shape} for 2 images, not a scalar", hint=hint)


def _check_sources(config: RunConfig) -> int:
    """How many images an epoch of training takes."""
    there = []
    folder = expand(config.data.cache_dir)
    model = config.model
    for source in (*config.data.train, *config.data.val):
        rows = select_rows(source, config.seed)
        _check_masks(rows, model.masks)
        there.append(len(rows))
        if (folder / cache_key(rows, config.data.cache_size, model.masks, model.filters)).exists():
            continue  # decoded before, from these files as they are
        check_room(folder, len(rows), config.data.cache_size, model.masks)
        files = {
            path.path: row
            for row in rows
            for path in (open_image(row), *(open_mask(row, i) for i in range(model.masks)))
        }
        missing = [path for path in files if not path.exists()]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(files)} files of split '{source.split}' are missing, "
                f"the first is {missing[0]}",
                file=expand(source.index),
                hint="locations are relative to the folder of the index; dermseg data check lists problems",
            )
    return sum(source.images_per_epoch(n) for source, n in zip(config.data.train, there, strict=False))


def _check_compiler(device: torch.device) -> None:
    """torch.compile fails at the first step where there is no compiler; this fails before."""
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:  # of which there are many kinds
        raise ConfigError(
            f"training.compile does not work here: {str(error).strip().splitlines()[0]}",
            hint="training.compile=false, or install a C++ compiler (CPU) or Triton (GPU)",
        ) from None


def _check_masks(rows: list[IndexRow], masks: int) -> None:
    """With one class, several masks of an image are repeated drawings of its lesion; else one per class."""
    for row in rows:
        if not row.masks:
            raise DataError(
                f"image '{row.image_id}' has no mask",
                hint="draw it, or take its row out: dermseg data check lists all such rows",
            )
        if masks > 1 and len(row.masks) != masks:
            raise DataError(
                f"the model needs {masks} masks per image and '{row.image_id}' has {len(row.masks)}",
                hint="one mask per class in the order of the classes; see model.options.classes",
            )


def _check_network(model: ModelConfig, training: TrainingConfig, batches: Sequence[tuple[int, int]]) -> None:
    own = "." not in model.architecture
    options = dict(model.options)
    if own and options.get("pretrained"):
        encoder = options.get("encoder", "efficientnet_lite0")
        if encoder in VARIANTS:
            find_imagenet_weights(encoder)
        elif encoder == tiny_vit.NAME:
            tiny_vit.find_mobile_sam()
        options["pretrained"] = False
    sizes = {training.at_epoch(epoch)[0] for epoch in range(training.epochs)}
    if training.inference_size:
        sizes.add(training.inference_size)
    try:
        # on the meta device a network of any size is built at once and computes shapes only
        with torch.device("meta" if own else "cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = build_model(model.architecture, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ConfigError(f"model.options of '{model.architecture}' ({shown}): {error}") from error
    multiple = int(getattr(network, "size_multiple", 1))
    for size in sorted(sizes):
        if size % multiple:
            below, above = size // multiple * multiple, -(-size // multiple) * multiple
            raise ConfigError(
                f"image_size {size} is not divisible by {multiple}, as '{model.architecture}' needs it",
                hint=f"use {below} or {above}" if below else f"use {above}",
            )
    if model.init_from:
        _check_start(model.init_from, network)
    if own:
        _check_batches(network, model, training, batches)
    else:
        _check_shape(network, model, min(sizes))


def _check_start(text: str, network: nn.Module) -> None:
    """Names and shapes only, so a network on the meta device will do."""
    try:
        start = find_start(text)
        found = start.state(network)
    except ModelError as error:
        raise ConfigError(f"model.init_from: {error.message}", file=error.file, hint=error.hint) from None
    wanted = network.state_dict()
    differ = [
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted or name not in found or wanted[name].shape != found[name].shape
    ]
    if differ:
        raise ConfigError(
            f"model.init_from is of another network: {len(differ)} tensors differ, such as '{min(differ)}'",
            hint=f"--from {text} takes architecture and options from there",
        )


def _check_batches(
    network: nn.Module, model: ModelConfig, training: TrainingConfig, batches: Sequence[tuple[int, int]]
) -> None:
    """Options that leave no channels fail here, and batch norms that would see a single number."""
    if str(model.options.get("encoder", "")).startswith("timm:"):
        return  # networks of others may need real numbers
    train_mode(network, freeze_norm=training.freeze_norm)
    for size, batch in batches:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network(torch.empty(batch, 3, size, size, device="meta"))
        except Exception as error:  # torch has several kinds
            raise ConfigError(
                f"'{model.architecture}' fails on a batch of {batch} of {size} x {size}: "
                f"{str(error).splitlines()[0]}",
                hint="other model.options; or a larger training.batch_size or image_size",
            ) from error


@torch.inference_mode()
def _check_shape(network: nn.Module, model: ModelConfig, size: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = tuple(network.eval()(torch.zeros(1, 3, size, size)).shape)
    except Exception as error:  # whatever somebody else's network does
        raise ConfigError(
            f"'{model.architecture}' fails on an image of {size} x {size}: {type(error).__name__}: {error}"
        ) from error
    if found != (1, model.classes, size, size):
        raise ConfigError(
            f"'{model.architecture}' gives {found} for one image of {size} x {size}, "
            f"expected {(1, model.classes, size, size)}",
            hint="model.options.classes says how many channels there are",
        )
