"""Segmentation networks in plain ``torch.nn``: one file per architecture."""

from dermseg.models.build import build_model, count_parameters, without_pretrained

__all__ = ["build_model", "count_parameters", "without_pretrained"]
