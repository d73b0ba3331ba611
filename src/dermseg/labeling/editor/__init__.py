"""Annotation without a window: masks as layers, tools, endless undo, a journal, a list of files.

Nothing here knows Qt. A program that shows it draws ``Document.layers`` and calls these modules.
"""
