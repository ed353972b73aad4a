"""The command `scav locate`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scav_model.cli.formats import format_of
from scav_model.cli.imported import Part, takes

if TYPE_CHECKING:
    from scav_model.locate import Located

# Format of an output, by the suffix of its name.
FORMATS = {".json": "json", ".html": "html", ".htm": "html", ".png": "png", ".txt": "text", "": "text"}


@takes(find=Part("scav_model.locate:locate", ("model", "progress")))
def locate(
    query: Path,
    recording: Path,
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    format: Literal["text", "json", "html", "png"] | None = None,
    output: Path | None = None,
    embed: int = 0,
    find: Callable[..., "Located"],
) -> None:
    """Finds where in a long recording a short sound or picture occurs.

    Args:
        query: Media file of seconds, such as a wav or an mp4.
        recording: Media file of any length.
        checkpoint: Model that encodes both files: a run's folder, its checkpoint.pt, a folder that save_pretrained
            wrote, or owner/name on the Hub; null compares the features of the front ends.
        format: text, json, html (a page with a plot and players) or png (the plot); null takes what the name of the
            output says, and text.
        output: File to write to, NAME.txt, NAME.json, NAME.html or NAME.png; null prints.
        embed: MiB of media files to put into the page itself, so that you can send it; the page links the others.
    """
    from scav_model.checkpoint import load_model
    from scav_model.devices import to_device
    from scav_model.locate.report import as_html, as_json, as_text, plot
    from scav_model.storage.files import make_folder, write_figure, write_text

    to_device(device)
    written = format_of(output, format, FORMATS)
    if written == "png" and output is None:
        raise ValueError("expected --output NAME.png to write a plot to, got none")
    model = None if checkpoint is None else load_model(checkpoint, device)[0]
    if output is not None:
        make_folder(output.parent)
    located = find(query, recording, model=model)
    if written == "png" and output is not None:
        write_figure(output, plot(located))
    else:
        if written == "html":
            text = as_html(located, None if output is None else output.parent, embed)
        else:
            text = as_json(located) if written == "json" else as_text(located)
        if output is None:
            print(text)
            return
        write_text(output, text.rstrip("\n") + "\n")
    print(f"{output}: {len(located.places)} places")
