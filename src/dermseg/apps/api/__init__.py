"""The REST server: ``dermseg serve``. See docs/api.md for what it offers and promises."""
