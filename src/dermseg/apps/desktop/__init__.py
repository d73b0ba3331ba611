"""The desktop program: a window over ``dermseg.labeling.editor``. Needs the extra ``[desktop]``."""
