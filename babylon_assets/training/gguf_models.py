"""From a GGUF file to a folder that training and serving read: weights, config, tokenizer, and where it came from."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babylon_assets.domain.errors import BaseModelRefused, MissingDependency
from babylon_assets.environments.small_models import Progress
from babylon_assets.training.families import require_family
from babylon_assets.training.model_sources import ORIGIN


def write_folder(file: Path, folder: Path, origin: Mapping[str, Any], progress: Progress) -> None:
    """Write the model of a GGUF file into a folder that is there; rounded weights become bf16.

    Args:
        origin: what is to be known of where the file came from; the file's own name and licence are added.

    Raises:
        MissingDependency: the package gguf is not installed.
        BaseModelRefused: another family, a tokenizer that cannot be read rightly, or weights that are not all there.
    """
    fields = read_fields(file)
    require_family(file.name, str(fields.get("general.architecture")))
    progress("preparing the base model", 0.2)
    try:
        _write_tokenizer(fields, folder, file.name)
    except KeyError as error:
        raise BaseModelRefused(f"{file.name} has no field {error}; set BASE_MODEL to a whole GGUF file") from error
    _write_weights(file, folder, "float32" if fields.get("general.file_type") == _ALL_F32 else "bfloat16")
    progress("preparing the base model", 1.0)
    named = {key.rpartition(".")[2]: value for key, value in fields.items() if key in _NAMED}
    (folder / ORIGIN).write_text(json.dumps({**origin, "file": file.name, **named}, indent=2))


#: The factors of Llama 3.1's rotary embedding.
_ROPE_TABLE = "rope_freqs.weight"
#: `general.file_type` of a file that was not rounded.
_ALL_F32 = 0
_NAMED = ("general.name", "general.organization", "general.license", "general.file_type")


def read_fields(file: Path) -> dict[str, Any]:
    """Every field of a GGUF file by its name, such as `tokenizer.ggml.tokens`.

    Raises:
        MissingDependency: the package gguf is not installed.
        BaseModelRefused: it is no GGUF file, or transformers would read it wrongly.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "the package gguf is not installed, without which a GGUF file cannot be read; type: pip install gguf"
        ) from error
    try:
        reader = GGUFReader(str(file))
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise BaseModelRefused(
            f"{file} cannot be read as a GGUF file ({error}); set BASE_MODEL to a whole one"
        ) from error
    if (of := int(fields.get("split.count", 1))) > 1:
        raise BaseModelRefused(
            f"{file.name} is one of {of} parts of a model; join them (llama-gguf-split --merge) and set BASE_MODEL to "
            "the whole file"
        )
    if any(tensor.name == _ROPE_TABLE for tensor in reader.tensors):
        raise BaseModelRefused(
            f"{file.name} scales its positions by a table ({_ROPE_TABLE}) that transformers does not read from a GGUF "
            "file; set BASE_MODEL to a folder of this model"
        )
    return fields


def _write_tokenizer(fields: Mapping[str, Any], folder: Path, name: str) -> None:
    from transformers import AutoTokenizer

    from babylon_assets.training.gguf_tokenizer import build_tokenizer, require_same_tokens

    tokenizer = build_tokenizer(fields, name)
    tokenizer.model_max_length = int(fields[f"{fields['general.architecture']}.context_length"])
    tokenizer.save_pretrained(folder)
    # AutoTokenizer looks at the model's type as well, which it reads from the config.
    (folder / "config.json").write_text(json.dumps({"model_type": fields["general.architecture"]}))
    require_same_tokens(AutoTokenizer.from_pretrained(folder), tokenizer, name)


def _write_weights(file: Path, folder: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with _without_bars():
        model: Any
        model, read = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=getattr(torch, dtype),
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
        if missing := sorted(read["missing_keys"]):  # transformers draws these at random
            raise BaseModelRefused(
                f"{file.name} lacks {len(missing)} of the model's tensors, such as {missing[0]}; set BASE_MODEL to a "
                "whole file"
            )
        model.save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the bars that transformers draws over ours; that of GGUF files has no switch."""
    from transformers import modeling_gguf_pytorch_utils as gguf_reading
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), gguf_reading.tqdm
    logging.disable_progress_bar()
    gguf_reading.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_reading.tqdm = bar
        if shown:
            logging.enable_progress_bar()
