"""A network that tells skin from lesion in two softmax channels, as one with a single channel.

``softmax(z0, z1)[1] = sigmoid(z1 - z0)``, and the last layer is linear: the difference of its two filters
gives the logit that a bundle holds, exactly.
"""

from __future__ import annotations

from torch import nn

from dermseg.errors import ModelError
from dermseg.models import build_model, without_pretrained
from dermseg.training.config import ModelConfig


def as_one_channel(model: nn.Module, config: ModelConfig) -> tuple[nn.Module, ModelConfig]:
    """The network whose logit is that of class 1 over class 0, and its configuration.

    Raises
    ------
    ModelError
        More classes than two: a bundle has one map, that of the lesion.
    """
    if config.classes != 2:
        raise ModelError(
            f"the network tells {config.classes} classes apart; a bundle holds one map, that of the lesion",
            hint="train with model.options.classes=2; 'dermseg suite evaluate' scores the run folder itself",
        )
    options = {**without_pretrained(config.options), "classes": 1}
    single = build_model(config.architecture, **options)
    wanted, state = single.state_dict(), model.state_dict()
    for name, tensor in wanted.items():
        if name in state and tensor.shape[:1] == (1,) and state[name].shape == (2, *tensor.shape[1:]):
            state[name] = state[name][1:] - state[name][:1]
    try:
        single.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"'{config.architecture}' cannot be stored with one channel: {str(error).splitlines()[0]}",
            hint="train with model.outputs=sigmoid and options.classes=1",
        ) from None
    return single.eval(), config.model_copy(update={"options": options, "outputs": "sigmoid"})
