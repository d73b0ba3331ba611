"""How sure the outline is: repeated passes, calibration, predicted Dice and margins, on NumPy alone."""
