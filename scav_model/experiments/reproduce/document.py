"""report.html: one file, to attach to a paper, with the results and everything that they depend on."""

from __future__ import annotations

import base64
import html
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from scav_model.config import Config, to_dict
from scav_model.data import Features, FeatureStore
from scav_model.data.describe import describe_features
from scav_model.data.ids import ids_sha256
from scav_model.data.store.reader import read_skipped
from scav_model.experiments.machine import machine
from scav_model.experiments.reproduce.published import DATASETS, LABELS
from scav_model.experiments.reproduce.report import HEADS, cells
from scav_model.experiments.tables import Row
from scav_model.fields import section
from scav_model.storage.files import file_sha256
from scav_model.storage.text import printable
from scav_model.training import CHECKPOINT

PACKAGES = ("scav-kernels", "torch", "numpy", "safetensors", "lightning-fabric", "av", "torchaudio", "triton")
STYLE = """
body { color: #1d2129; font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em; }
table { border-collapse: collapse; margin: .8em 0; }
th, td { padding: .15em .6em; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #57606a; } td { border-bottom: 1px solid #d0d7de; overflow-wrap: anywhere; }
img { max-width: 100%; } code { font-size: .92em; } .note { background: #fff3c4; padding: .4em .8em; }
"""


def document(
    about: Mapping[str, Any],
    configs: Mapping[str, Config],
    splits: Mapping[str, Features],
    searches: Sequence[Row],
    out: Path,
) -> str:
    """Return the page.

    Args:
        about: settings of the run, with the folder of its features.
        configs: settings of each row.
        splits: clips of training and test.
        searches: results, one row for each search, with both directions in it.
        out: the run's folder, with its plots and checkpoints.
    """
    title = f"{DATASETS[about['dataset']]}: audio-visual retrieval, seed {about['seed']}"
    changed = ""
    if about["settings"]:
        changed = f'<p class="note">Not the paper\'s setting. Changed in every row: {code(about["settings"])}</p>'
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p>Trained and searched by <code>scav reproduce</code> of scav-kernels "
        f"{escape(about['version'])}. Published numbers are those of arXiv 2407.05782.</p>",
        changed,
        "<h2>Results</h2>",
        table(HEADS, map(cells, searches)),
        "<p>Percent of queries; MedR is a rank. Measured R@1 is the mean of both directions.</p>",
        picture(out / "results.png", "R@1 by search"),
        picture(out / "hybrid.png", "R@1 of hybrid search by k"),
        "<h2>Clips</h2>",
        table(("split", "clips", "SHA-256 of the sorted ids, one a line"), map(split_line, splits, splits.values())),
        f"<p>{escape(skipped_line(splits))} The ids are in train-ids.txt and test-ids.txt.</p>",
        "<h2>Features</h2>",
        table(("side", "what the features were made by"), feature_lines(splits["train"])),
        "<h2>Training</h2>",
        table(("row", "seed", "training, s", "SHA-256 of checkpoint.pt"), training_lines(configs, searches, out)),
        "<h2>Settings</h2>",
        "<p>The paper does not state the values that are marked as assumed.</p>",
        table(("setting", *(LABELS[row] for row in configs), "assumed"), setting_lines(configs)),
        "<h2>Versions and machine</h2>",
        table(("", ""), version_lines()),
        "<h2>Repeat it</h2>",
        f"<p>{code_text(command(about, configs))}</p>",
        "<p>For another seed, add <code>--seed</code> with its number and another <code>--out</code>. "
        "results.json has all numbers by row, search and direction.</p>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, parts)) + "\n</body>\n</html>\n"
    )


def split_line(split: str, features: Features) -> list[str]:
    return [split, f"{len(features)}", ids_sha256(features.ids)]


def skipped_line(splits: Mapping[str, Features]) -> str:
    """Return how many clips of the store could not be used."""
    store = splits["train"]
    if not isinstance(store, FeatureStore):
        return "The features are files, which do not say how many clips could not be used."
    return f"{len(read_skipped(store.folder))} clips of the list could not be used and are in no split."


def feature_lines(features: Features) -> list[list[str]]:
    """Return a line for each side: all that the store says of its encoder."""
    return [[side, json.dumps(described, sort_keys=True)] for side, described in describe_features(features).items()]


def training_lines(configs: Mapping[str, Config], searches: Sequence[Row], out: Path) -> list[list[str]]:
    seconds = {search["row"]: search["train_seconds"] for search in searches}
    return [
        [LABELS[row], f"{config.seed}", f"{seconds[row]:.0f}", file_sha256(out / row / CHECKPOINT)]
        for row, config in configs.items()
    ]


def setting_lines(configs: Mapping[str, Config]) -> list[list[str]]:
    """Return a line for each setting: its value in every row, and whether it is an assumption."""
    values = [to_dict(config) for config in configs.values()]
    lines = []
    for name, assumed in settings():
        path = name.split(".")
        found = []
        for value in values:
            for key in path:
                value = value[key]
            found.append(json.dumps(value))
        lines.append([name, *found, "yes" if assumed else ""])
    return lines


def settings(cls: type = Config, prefix: str = "") -> Iterable[tuple[str, bool]]:
    """Yield every setting, as in `model.heads`, and whether its value is an assumption."""
    for entry in fields(cls):
        inner = section(entry)
        if inner is None:
            yield prefix + entry.name, bool(entry.metadata["assumption"])
        else:
            yield from settings(inner, f"{prefix}{entry.name}.")


def version_lines() -> list[list[str]]:
    """Return the packages that are installed, and the machine that the report was written on."""
    installed = {
        package.metadata["Name"].lower().replace("_", "-"): package.version for package in metadata.distributions()
    }
    lines = [[package, installed[package]] for package in PACKAGES if package in installed]
    return [*lines, ["system", platform.platform()], *([name, f"{value}"] for name, value in machine().items())]


def command(about: Mapping[str, Any], configs: Mapping[str, Config]) -> str:
    """Return the command that repeats the run, given its features and, if there is one, its file of settings."""
    device = next(iter(configs.values())).device
    parts = [f"scav reproduce {about['dataset']} --features {about['features']} --device {device}"]
    parts += [f"--rows [{','.join(configs)}] --hybrid_k {json.dumps(about['hybrid_k'], separators=(',', ':'))}"]
    parts += [f"--seed {about['seed']}", "--settings FILE" if about["settings"] else ""]
    return " ".join(filter(None, parts))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def picture(path: Path, title: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img src="data:image/png;base64,{content}" alt="{escape(title)}"></p>'


def code(value: Any) -> str:
    return code_text(json.dumps(value))


def code_text(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def escape(text: object) -> str:
    return html.escape(printable(str(text)))
