"""Where a run stands: part of every checkpoint, and what decides when it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from dermseg.training.checkpoint import CONFIG
from dermseg.training.config import RunConfig, TrainingConfig

FEW_STEPS = 300  # of the optimizer: fewer from ImageNet or random weights hardly learn anything


@dataclass
class Progress:
    """Counters of a run.

    Attributes
    ----------
    epoch, epoch_step, step
        Epoch (0-based), steps of the optimizer in it, and steps in all.
    loss_sum, loss_steps
        Sum of the losses of this epoch's steps, as far as they were read from the device, and of how many.
    best_score, best_dice, best_epoch
        The metric that chooses the best checkpoint, and the Dice coefficient of that checkpoint.
    lr_scale, plateau_wait
        With ``schedule=plateau``: by how much the learning rate has been lowered, and validations since
        anything better.
    seconds
        Spent in training steps, waiting for data included.
    """

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    best_score: float | None = None
    best_dice: float = -1.0
    best_epoch: int = -1
    validations_since_best: int = 0
    seconds: float = 0.0
    val: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    lr_scale: float = 1.0
    plateau_wait: int = 0

    def to_json(self) -> str:
        """One line for the checkpoint."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """From a checkpoint; those of before there was a choice of metrics were chosen by Dice."""
        known = {f.name for f in fields(cls)}
        progress = cls(**{key: value for key, value in json.loads(text).items() if key in known})
        progress.loss_steps = progress.epoch_step  # all are read for a checkpoint; older ones do not say it
        if progress.best_score is None and progress.best_epoch >= 0:
            progress.best_score = progress.best_dice
        return progress

    @property
    def mean_loss(self) -> float:
        """Mean loss of the epoch so far; 0 where none has been read."""
        return self.loss_sum / max(1, self.loss_steps)

    def validated(self, score: float, dice: float, t: TrainingConfig) -> bool:
        """Take note of a validation; True where it is the best so far.

        ``schedule=plateau`` lowers the learning rate as ``ReduceLROnPlateau`` does, without a threshold.
        """
        better = self.best_score is None or score > self.best_score
        if t.schedule == "plateau":
            self.plateau_wait = 0 if better else self.plateau_wait + 1
            if self.plateau_wait > t.plateau_patience:
                self.lr_scale, self.plateau_wait = self.lr_scale * t.plateau_factor, 0
        if better:
            self.best_score, self.best_dice, self.best_epoch = score, dice, self.epoch
            self.validations_since_best = 0
        else:
            self.validations_since_best += 1
        return better

    def next_epoch(self, t: TrainingConfig) -> None:
        """Go to the next epoch, or find that the run has come to its end.

        ``phases`` are a beginning: no run stops in one, and patience begins anew at the size of the rest.
        """
        self.epoch, self.epoch_step, self.loss_sum, self.loss_steps = self.epoch + 1, 0, 0.0, 0
        if self.epoch <= sum(phase.epochs for phase in t.phases):
            self.validations_since_best = 0
        self.finished = self.epoch >= t.epochs or self.validations_since_best >= t.early_stopping_patience


def beginning(config: RunConfig, steps: int) -> list[str]:
    """What a person should know of a run of so many steps before it begins, a line each."""
    t, kept = config.training, config.data.cache_size
    lines = []
    if steps < FEW_STEPS and not config.model.init_from:
        lines.append(
            f"warning: {steps} steps are few to learn from; go on from a trained model "
            "(--from default), or take more training.epochs or a smaller training.batch_size"
        )
    if config.model.outputs == "softmax" and config.model.classes > 2:
        lines.append(
            f"warning: a network that tells {config.model.classes} classes apart cannot be exported: "
            "a bundle has one map, that of the lesion; with model.options.classes=2 it can"
        )
    lines += [
        f"warning: data.val.{number}.{key} has no effect: validation takes each image once; limit takes fewer"
        for number, source in enumerate(config.data.val)
        for key in ("per_epoch", "at_least")
        if getattr(source, key) is not None
    ]
    largest = max(t.at_epoch(epoch)[0] for epoch in range(t.epochs))
    if largest > kept:
        lines.append(
            f"warning: images are kept at {kept} px (data.cache_size) and enlarged to {largest} px "
            f"(training.image_size), with no more to see in them; --set data.cache_size={largest}"
        )
    return lines


def finished(p: Progress, folder: Path) -> list[str]:
    """What a person should know who resumes a run that has come to its end, a line each."""
    longer = f"dermseg train {folder / CONFIG} --from {folder} -o ANOTHER"
    return [f"the run has come to its end, after {p.epoch} epochs; to train longer: {longer}"]


def ending(p: Progress, t: TrainingConfig) -> list[str]:
    """What a person should know of how a run came to its end, a line each."""
    lines = []
    if p.epoch < t.epochs:
        lines.append(
            f"stopped early, after {p.epoch} of {t.epochs} epochs: {p.validations_since_best} validations "
            f"without improvement (training.early_stopping_patience={t.early_stopping_patience})"
        )
    if p.best_dice == 0:
        lines.append(
            "warning: no validation found any lesion, the best Dice is 0; are the masks right ('dermseg data "
            "check'), is the learning rate (training.lr), and are there steps enough? --from default starts "
            "from a trained model"
        )
    return lines
