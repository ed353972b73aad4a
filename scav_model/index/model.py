"""The model of an index: it encoded the clips, and encodes the queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scav_model.checkpoint import load_model
from scav_model.config import Config, Option
from scav_model.data.store.header import Dtype
from scav_model.distances import retrieval_distance
from scav_model.encoders.weights import weights_sha256
from scav_model.index.header import Header, SearchIndexError
from scav_model.model import AudioVisualModel


def load_for(header: Header, checkpoint: Path | None = None, device: str = "cpu") -> AudioVisualModel:
    """Load the model that encoded an index, from its path of then, or from `checkpoint`, as `load_model` takes it.

    Raises:
        SearchIndexError: the file is not there, or holds other weights.
    """
    path = Path(header.checkpoint) if checkpoint is None else checkpoint
    try:
        model, _ = load_model(path, device)
    except FileNotFoundError as error:
        raise SearchIndexError(
            f"no checkpoint at {path}, and a query has to be encoded by the model that encoded the index; "
            f"name its file with --checkpoint ({error})"
        ) from error
    check_weights(header, path, model)
    return model


def check_weights(header: Header, path: Path, model: AudioVisualModel) -> None:
    found = weights_sha256(model.state_dict())
    if found != header.model_sha256:
        raise SearchIndexError(
            f"{path} holds another model than the one that encoded the index: the SHA-256 of its weights is "
            f"{found[:12]}…, not {header.model_sha256[:12]}…; name the right one with --checkpoint"
        )


def header_for(
    checkpoint: Path,
    model: AudioVisualModel,
    config: Config,
    features: dict[str, dict[str, Any]],
    *,
    metric: str | None = None,
    options: dict[str, Option] | None = None,
    dtype: Dtype = "bfloat16",
    sides: tuple[str, ...] = ("video", "audio"),
) -> Header:
    """Return the header of a new index.

    Args:
        checkpoint: what the model was loaded from.
        features: `describe_features` of what the model takes.
        metric, options: of the distance; None takes those that the model is to be searched with.
        dtype: Numbers of the encoded steps on disk; exact search is exact for what is stored.
        sides: to hold.
    """
    distance = retrieval_distance(config, metric, options)
    for side, encoder in (("video", model.visual), ("audio", model.audio)):
        if features[side]["dim"] != encoder.input_dim:
            raise SearchIndexError(
                f"{checkpoint} takes {side} steps of {encoder.input_dim} features, and these features have "
                f"{features[side]['dim']}; extract them with the front ends that it was trained with"
            )
    return Header(
        # A repository of the Hub is no file.
        checkpoint=str(checkpoint.resolve() if checkpoint.exists() else checkpoint),
        model_sha256=weights_sha256(model.state_dict()),
        metric=distance.metric,
        options=distance.options,
        per_step=distance.per_step,
        dim=model.config.dim,
        dtype=dtype,
        sides=list(sides),
        features=features,
    )
