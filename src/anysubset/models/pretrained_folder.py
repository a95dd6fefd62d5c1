"""Load a pretrained encoder from a local folder in the format of Hugging Face; nothing is downloaded.

Any model of `transformers`, which the extra `transformers` installs, that takes token ids, raw waveforms or pixel
values and gives hidden states: BERT, RoBERTa, DistilBERT; wav2vec 2.0, HuBERT, WavLM; ViT, DINOv2, the parts of CLIP.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anysubset.errors import InputError, one_line
from anysubset.system.input_files import read_json
from anysubset.system.limits import check_memory

# The argument of a model that takes a kind of input, and that kind in words.
ARGUMENTS = {"tokens": "input_ids", "waveform": "input_values", "image": "pixel_values"}
WORDS = {"tokens": "token ids (whole numbers)", "waveform": "waveforms (floats with lengths)", "image": "images"}
# Models such as CLIP consist of an encoder of text and one of images, each with a configuration of its own.
PARTS = {"tokens": "text_config", "image": "vision_config"}
MOST_LAYERS = 200  # The largest published encoders have fewer than 100.
MOST = 10**7  # Of any other number in a configuration.
# Settings that drop parts of the input or whole layers in training, with numpy's random numbers, which are not saved.
DROPPING = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "mask_time_prob": 0.0}


def read_model(folder: str, kind: str) -> nn.Module:
    """Load the model of a folder in float32, without its pooling layer, which is not used.

    Args:
        folder: written by `save_pretrained`.
        kind: of the input that it has to take, a key of `ARGUMENTS`.

    Raises:
        InputError: if the folder holds no readable model of this kind, weights are missing, or `transformers` is not
            installed.
    """
    path = checked_config(folder)
    try:
        import transformers
    except ImportError:
        raise InputError(
            "method.encoders needs the package transformers: pip install -e '.[transformers]' in the folder of "
            "anysubset, or leave the setting out."
        ) from None
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            config = getattr(config, PARTS.get(kind, ""), config)
            for name, value in DROPPING.items():
                if hasattr(config, name):
                    setattr(config, name, value)
            with torch.device("meta"):  # Shapes alone, which take no memory.
                outline = transformers.AutoModel.from_config(config)
    except Exception as error:  # `transformers` passes on what any damaged file raises.
        raise InputError(f"{path} does not describe an encoder: {one_line(error)}") from None
    check_kind(outline, kind, path)
    check_memory(path, 4 * sum(parameter.numel() for parameter in outline.parameters()))
    pooling = (
        {"add_pooling_layer": False} if "add_pooling_layer" in signature(type(outline).__init__).parameters else {}
    )
    try:
        with quiet():
            model, report = type(outline).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                output_loading_info=True,
                weights_only=True,  # Of a `.bin` file, which is a pickle: tensors, and no code.
                **pooling,
            )
    except Exception as error:  # As above.
        raise InputError(f"The encoder in {folder} cannot be read: {one_line(error)}") from None
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(
            f"The encoder in {folder} lacks {len(missing)} weights, such as {', '.join(missing[:3])}: save it again "
            "with save_pretrained."
        )
    encoder: nn.Module = model.float().train()
    for name, parameter in encoder.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"The encoder in {folder} has weights that are NaN or infinite, such as {name}.")
    return encoder


def checked_config(folder: str) -> Path:
    """The path of a folder's `config.json`, whose numbers are in the range of real models.

    Raises:
        InputError: if the folder does not exist, or the file is missing, damaged or out of range.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        fault = "has no config.json" if path.parent.is_dir() else "does not exist"
        raise InputError(f"method.encoders takes folders written by save_pretrained; {folder} {fault}.")
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path} does not describe an encoder: it lacks model_type.")
    for name, number in numbers_in(config):
        most = MOST_LAYERS if name.endswith(("layers", "depths", "depth")) else MOST
        if not -MOST <= number <= most:
            raise InputError(f"{path} does not describe an encoder: {name} is {number:g}, and {most:,} is the most.")
    return path


def numbers_in(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each number of a configuration, also in its parts and lists, with its name."""
    for name, value in config.items():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict):
                yield from numbers_in(entry)
            elif isinstance(entry, int | float):
                yield name, entry


def check_kind(model: nn.Module, kind: str, path: Path) -> None:
    """Raise InputError if a model does not take a kind of input. path: of its configuration, for the message."""
    config: Any = model.config
    takes = str(getattr(model, "main_input_name", None))
    if getattr(config, "is_encoder_decoder", False):
        fault = "which also has a decoder: save its encoder alone"
    elif takes == "input_values" and not hasattr(config, "conv_stride"):
        fault = "which takes spectrograms: compute them beforehand, and give them as sequences or images"
    elif takes != ARGUMENTS[kind]:
        words = {argument: WORDS[name] for name, argument in ARGUMENTS.items()}
        fault = f"which takes {words.get(takes, takes)}, and not {WORDS[kind]}"
    else:
        return
    raise InputError(f"{path} describes a model of type {config.model_type!r}, {fault}.")


def read_preprocessing(folder: str) -> dict[str, Any]:
    """The `preprocessor_config.json` of a folder; empty if there is none.

    Raises:
        InputError: if the file is damaged.
    """
    path = Path(folder) / "preprocessor_config.json"
    settings = read_json(path) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise InputError(f"{path} is damaged: it must be an object {{...}}.")
    return settings


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bar of `transformers` and its report on unused weights, such as those of the pooling."""
    from transformers.utils import logging

    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
