"""``dermseg models``: the architectures and bundles there are, what a card says, whether files are whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import new_app, print_json, say
from dermseg.errors import MissingExtraError, ModelError
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.inference.bundle import Bundle
    from dermseg.inference.card import ModelCard

app = new_app()
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's name, folder or zip.")]


@app.callback()
def root() -> None:
    """List, show and verify architectures and model bundles."""


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the trainable architectures and the bundled models."""
    from dermseg.inference.bundle import list_bundles
    from dermseg.registry import ARCHITECTURES

    rows: list[dict[str, Any]] = [
        {
            "name": a.name,
            "kind": "architecture",
            "parameters": a.parameters,
            "summary": a.summary,
            "pretrained": a.pretrained,
            "source": a.source,
        }
        for a in ARCHITECTURES
    ]
    rows += [
        {
            "name": bundle.path.name,
            "kind": "bundle",
            "parameters": bundle.card.parameters,
            "summary": bundle.card.summary,
            "version": bundle.card.version,
            "architecture": bundle.card.architecture,
            "input": [bundle.card.preprocessing.height, bundle.card.preprocessing.width],
            "variants": sorted(bundle.card.variants),
            "path": str(bundle.path),
        }
        for bundle in list_bundles()
    ]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = f", input {row['input'][0]} x {row['input'][1]}" if "input" in row else ""
        sys.stdout.write(
            f"{row['name']:<{width}}  {row['kind']:<12}  {row['parameters']:>11,}  {row['summary']}{size}\n"
        )


@app.command()
def info(bundle: BundleArgument = "default", as_json: JsonOption = False) -> None:
    """Show the card of a bundle: use, training data, results."""
    from dermseg.inference.bundle import load_bundle

    found = load_bundle(bundle)
    if as_json:
        print_json(found.card.model_dump(mode="json") | {"path": str(found.path)})
        return
    sys.stdout.write("\n".join(_card_lines(found)) + "\n")


@app.command()
def verify(bundle: BundleArgument = "default", as_json: JsonOption = False) -> None:
    """Check every file of a bundle, and that its networks can be run.

    Size and sha256 of each are compared with the card.
    """
    from dermseg.inference.bundle import load_bundle
    from dermseg.inference.predictor import Model

    found = load_bundle(bundle)
    variants = found.verify()
    for name, state in variants.items():
        if state == "ok" and found.card.variant(name).interface == "logits":
            try:
                Model(found, variant=name)
            except MissingExtraError as error:
                variants[name] = f"ok, but not tried: {error}"
            except ModelError as error:
                variants[name] = error.message
    attachments = found.verify_attachments()
    ok = all(state.startswith("ok") for state in (*variants.values(), *attachments.values()))
    if as_json:
        parts = {"variants": variants, "attachments": attachments}
        print_json({"ok": ok, "name": found.card.name, "path": str(found.path), **parts})
    else:
        for name, state in [*variants.items(), *attachments.items()]:
            say(f"{found.card.name} {name}: {state}")
    raise typer.Exit(0 if ok else 1)


def _card_lines(bundle: Bundle) -> list[str]:
    card = bundle.card
    p, post = card.preprocessing, card.postprocessing
    steps = [
        name
        for name, on in (
            ("smoothing", post.smooth_radius > 0),
            ("hole filling", post.fill_holes),
            ("smallest area", post.min_area_fraction > 0),
            ("largest component", post.keep_largest),
        )
        if on
    ]
    lines = [
        f"{card.name} {card.version} ({card.created}), {card.licence}",
        card.summary,
        f"  where         {bundle.path}",
        f"  network       {card.architecture}, {card.parameters:,} parameters, input {p.height} x {p.width}",
        f"  threshold     {post.threshold:g} at temperature {post.temperature:g}",
        f"  then          {', '.join(steps) or 'nothing'}",
    ]
    lines += variant_lines(card)
    for metric in card.metrics:
        values = [
            f"{label} {_interval(value)}"
            for label, value in (
                ("Dice", metric.dice),
                ("Jaccard", metric.jaccard),
                ("thresholded Jaccard", metric.threshold_jaccard),
            )
            if value
        ]
        lines.append(f"  {metric.dataset} {metric.split}, {counted(metric.n, 'image')}: {', '.join(values)}")
    lines += [f"  use           {card.intended_use}"] if card.intended_use else []
    lines += [f"  limit         {text}" for text in card.limitations]
    return [line for line in lines if line]


def variant_lines(card: ModelCard) -> list[str]:
    """For each variant its files, how far it is from the original, and how fast it was."""
    lines = []
    for name, v in card.variants.items():
        chosen = " (default)" if name == card.default_variant else ""
        size = sum(stored.bytes for stored in v.files) / 1e6
        opset = f", opset {v.opset}" if v.opset else ""
        lines.append(f"  variant       {name}{chosen}: {v.precision}, {size:.1f} MB{opset}, {v.sha256[:12]}")
        if v.partner:
            lines.append(f"    partner     {v.partner.bundle}, {v.partner.variant}, {v.partner.sha256[:12]}")
        if v.parity:
            lines.append(f"    parity      {_parity(v.parity)}")
        runtimes = dict.fromkeys(row.runtime for row in v.latency)
        for runtime in runtimes:
            times = [
                f"{row.p50_ms:.1f} ms (batch {row.batch}, {row.threads} thread{'s' * (row.threads > 1)})"
                for row in v.latency
                if row.runtime == runtime
            ]
            lines.append(f"    {runtime:<12}{', '.join(times)}")
        if v.speedup is not None and name != "fp32":  # float32 beside itself is noise
            lines.append(f"    speed       {v.speedup:.2f} times fp32 in ONNX Runtime, where it was exported")
        if v.notes:
            lines.append(f"    note        {v.notes}")
    return lines


def _parity(parity: dict[str, Any]) -> str:
    """What is known of it, in one line; cards of other versions may know less."""
    parts = []
    if "max_difference" in parity:
        parts.append(f"probability differs by at most {parity['max_difference']:.4f}")
    if "mean_difference" in parity:
        parts.append(f"{parity['mean_difference']:.6f} on average")
    if "flipped_pixels" in parity:
        parts.append(f"{100 * parity['flipped_pixels']:.3f} % of pixels flip")
    before = parity.get("dice_reference", parity.get("dice_torch"))
    if before is not None and "dice" in parity:
        parts.append(f"Dice {before:.4f} to {parity['dice']:.4f}")
    return f"{', '.join(parts)} ({parity.get('images', '?')} images)"


def _interval(value: dict[str, Any]) -> str:
    mean, interval = value.get("mean"), value.get("ci95_clustered", value.get("ci95"))
    text = f"{mean:.3f}" if isinstance(mean, int | float) else "unknown"
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text
