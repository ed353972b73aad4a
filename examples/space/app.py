"""A Gradio Space: compare two clips, moment by moment. `python app.py` serves it; README.md says how to publish it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import gradio as gr
from compare import METRICS, compare, render_examples, ways
from matplotlib.figure import Figure

from scav_model import AudioVisualModel

MODEL = os.environ.get("SCAV_MODEL")


def make_app(examples: list[Path], model: AudioVisualModel | None = None) -> gr.Blocks:
    """Return the page; it begins with the first two of the examples."""

    def show(first: str | None, second: str | None, metric: str, way: str) -> tuple[Figure, str]:
        if first is None or second is None:
            raise gr.Error("choose or upload two clips")
        try:
            found = compare(Path(first), Path(second), metric, way, model)
        except ValueError as error:
            raise gr.Error(str(error)) from error
        return found.figure, found.words

    with gr.Blocks(title="Sequence distances of clips") as app:
        gr.Markdown(
            "# Which moments of two clips match?\n"
            "Choose or upload two clips. Dark cells are moments that are alike; the line or the bright cells are the "
            "matches that the distance is the sum of."
        )
        with gr.Row():
            clips = [
                gr.Video(str(path), label=label)
                for path, label in zip(examples, ("First clip", "Second clip"), strict=False)
            ]
        for clip in clips:
            gr.Examples(
                [[str(path)] for path in examples], [clip], label=f"Rendered clips, as the {clip.label.lower()}"
            )
        with gr.Row():
            metric = gr.Radio(list(METRICS), value="dtw", label="Distance")
            way = gr.Radio(ways(model), value=ways(model)[0], label="Compare")
        button = gr.Button("Compare", variant="primary")
        words = gr.Textbox(label="Distance", interactive=False)
        plot = gr.Plot(label="Costs and matches")
        button.click(show, [*clips, metric, way], [plot, words], api_name="compare", concurrency_limit=2)
    return app


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        loaded = None if MODEL is None else AudioVisualModel.from_pretrained(MODEL)
        make_app(render_examples(Path(folder)), loaded).launch(max_file_size="64mb", allowed_paths=[folder])
