"""A reading as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping

from dermseg.measure.geometry import Reading

_ROWS = (
    ("Area", "area", "2"),
    ("Perimeter", "perimeter", ""),
    ("Largest diameter", "feret_max", ""),
    ("Smallest diameter", "feret_min", ""),
    ("Equivalent diameter", "equivalent_diameter", ""),
)


def lesion_rows(readings: Mapping[int, Reading]) -> list[dict[str, str]]:
    """The rows of each lesion by its number; that is left out where there is one lesion."""
    if len(readings) == 1:
        return measurement_rows(*readings.values())
    return [
        {"Lesion": str(number), **row}
        for number, reading in readings.items()
        for row in measurement_rows(reading)
    ]


def measurement_rows(reading: Reading) -> list[dict[str, str]]:
    """Name and value of each measurement, in millimetres only where the scale is known."""
    rows = []
    for label, name, power in _ROWS:
        row = {"Measure": label, "Pixels": f"{getattr(reading, f'{name}_px'):,.0f}"}
        real = getattr(reading, f"{name}_mm{power}")
        if real is not None:
            row["Millimetres"] = f"{real:,.2f} mm{'²' if power else ''}"
        rows.append(row)
    if reading.circularity is not None:
        row = {"Measure": "Circularity (disc: 1)", "Pixels": f"{reading.circularity:.2f}"}
        if reading.spacing_mm is not None:
            row["Millimetres"] = ""
        rows.append(row)
    return rows
