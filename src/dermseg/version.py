"""The version of this release. A module of its own, so that every room may read it: the package itself names
what lies above them."""

__version__ = "0.1.0"
