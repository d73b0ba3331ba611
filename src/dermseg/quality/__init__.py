"""Can this image be used: focus, light, what lies on the skin, what kind of picture it is."""
