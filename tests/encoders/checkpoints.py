"""Tiny, randomly initialized checkpoints in the formats of the official ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from scav_model.encoders.beats import speechbrain_beats

# ViT-L/14's shape in small: a class token, patches of 14 pixels, width 32, two blocks.
CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESSING = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"}
BEATS_CONFIG = {
    "input_patch_size": 16,
    "embed_dim": 16,
    "conv_bias": False,
    "encoder_layers": 2,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_wise_gradient_decay_ratio": 0.6,
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "finetuned_model": False,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}


# PE-AV's parts in small; as in its checkpoints, 1920 samples of 48 kHz are a step.
PE_AV_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
}
PE_AV_CONFIG = {
    "text_config": {
        "model_type": "modernbert", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "cls_token_id": 1, "sep_token_id": 2,
    },
    "audio_video_config": {
        **PE_AV_LAYERS,
        "audio_config": {
            "model_type": "pe_audio_encoder",
            "dac_config": {
                "model_type": "dac", "downsampling_ratios": [2, 8, 10, 12], "encoder_hidden_size": 2, "codebook_dim": 8,
                "n_codebooks": 1, "codebook_size": 4, "decoder_hidden_size": 16,
                "sampling_rate": 48_000,
            },
            **PE_AV_LAYERS,
        },
        "video_config": {
            "model_type": "pe_video_encoder",
            "vision_config": {
                "model_type": "timm_wrapper", "architecture": "vit_pe_core_tiny_patch16_384", "do_pooling": True,
                "num_classes": 12, "global_pool": "map", "initializer_range": 0.02,
                "model_args": {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32},
            },
            **PE_AV_LAYERS,
        },
    },
}  # fmt: skip
PE_AV_VIDEO = {
    "video_processor_type": "PeVideoVideoProcessor", "do_sample_frames": False, "size": {"height": 32, "width": 32},
    "do_normalize": True, "do_resize": True, "do_rescale": True, "do_convert_rgb": True,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7],
}  # fmt: skip
PE_AV_AUDIO = {
    "feature_extractor_type": "PeAudioFeatureExtractor", "feature_size": 1, "hop_length": 1920, "padding_side": "right",
    "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 48_000,
}  # fmt: skip


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """Change gains and offsets from where they began, as training does."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.LayerNorm | torch.nn.GroupNorm):
                layer.weight.add_(0.2 * torch.randn_like(layer.weight))
                if layer.bias is not None:
                    layer.bias.add_(0.2 * torch.randn_like(layer.bias))
    return module


def clip_folder(folder: Path, *, seed: int = 0, touched: bool = True, suffix: str = ".safetensors") -> Path:
    """A folder as open_clip writes it: configuration and weights."""
    import open_clip

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CLIP_CONFIG)
        if touched:
            trained(model)
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, folder / "open_clip_model.safetensors")
    else:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder


def beats_file(path: Path, *, seed: int = 0, touched: bool = True, finetuned: bool = False, **changes: Any) -> Path:
    """An official BEATs checkpoint: {'cfg', 'model'}, and a predictor if it is fine-tuned."""
    library = speechbrain_beats()
    config = {**BEATS_CONFIG, "finetuned_model": finetuned, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _empty(library.BEATs, library.BEATsConfig(config))
        if touched:
            trained(model)
    torch.save({"cfg": config, "model": model.state_dict()}, path)
    return path


def _empty(library: Any, config: Any) -> torch.nn.Module:
    """A model of that configuration: the library's constructor takes one only out of a checkpoint."""
    from unittest.mock import patch

    with patch("speechbrain.lobes.models.beats.BEATsConfig", lambda ignored: config):
        return library()


def pe_av_folder(folder: Path, *, seed: int = 0, touched: bool = True) -> Path:
    """A checkpoint of PE-AV as transformers writes it."""
    from transformers import PeAudioVideoConfig, PeAudioVideoModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PeAudioVideoModel(PeAudioVideoConfig(**PE_AV_CONFIG))
        if touched:
            trained(model)
    model.save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(PE_AV_VIDEO))
    (folder / "preprocessor_config.json").write_text(json.dumps(PE_AV_AUDIO))
    return folder


class Bomb:
    """A pickle that makes a file when it is read by a reader that runs what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)
