"""``report.html`` of a finished batch, from its record and its journal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dermseg.inference.batch import BatchResult
from dermseg.inference.journal import read_entries
from dermseg.inference.outputs import REPORT
from dermseg.report.html import write_report

_NAMED = 5  # a shell makes of photos/*.jpg thousands of inputs


def write_batch_report(result: BatchResult) -> None:
    """Write the page into the folder of a batch that was not interrupted."""
    record = result.record
    model, options = record["model"], record["options"]
    chosen = [f"lesions: {options['lesions']}"]
    if options["threshold"] is not None:
        chosen.append(f"threshold: {options['threshold']:g}")
    chosen += [text for key, text in (("tta", "averaged over flips and turns"),) if options[key]]
    chosen += [text for key, text in (("allow_truncated", "truncated files allowed"),) if options[key]]
    if options["uncertainty"]:
        level = options["margin"]
        chosen.append("no margins" if level is None else f"margins (white) of level {level:g}")
    write_report(
        result.out / REPORT,
        partial(read_entries, result.out),
        counts=result.counts,
        about={
            "Model": f"{model['name']} {model['version']} ({model['variant']}, {model['sha256'][:12]})",
            "Options": "; ".join(chosen),
            "Inputs": _inputs(record["inputs"]),
            "dermseg": record["versions"]["dermseg"],
        },
        finished=record["timing"]["ended"].replace("T", " ").replace("+00:00", " UTC"),
    )


def _inputs(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return shown if more <= 0 else f"{shown} and {more:,} more (all in run.json)"
