"""The dashboard: one image, many images, two models, results. Pages draw; everything else is plain."""
