"""What metrics are called on pages."""

NAMES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "threshold_jaccard": "thresholded Jaccard",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "precision": "precision",
    "hd95_px": "HD95, pixels",
    "hd95_mm": "HD95, mm",
    "hd95_diagonal": "HD95, share of diagonal",
    "assd_px": "ASSD, pixels",
    "assd_mm": "ASSD, mm",
    "assd_diagonal": "ASSD, share of diagonal",
    "surface_dice": "surface Dice (1 % of diagonal)",
    "boundary_iou": "boundary IoU",
    "ece": "calibration error (per image)",
    "brier": "Brier score",
    "ece_band": "calibration error near the boundary",
    "brier_band": "Brier score near the boundary",
    "failed": "failed (Jaccard below 0.65)",
}
"""Metrics in words."""
