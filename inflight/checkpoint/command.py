"""The `inflight convert` command."""

import argparse
import shlex
from pathlib import Path

from inflight.checkpoint.convert import convert_checkpoint
from inflight.checkpoint.weight_types import DEFAULT_GROUP_SIZE, DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="Hugging Face directory (safetensors) or GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory to make")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="type of the weights; auto keeps the source's (default); int8 is per channel, int4 by groups",
    )
    parser.add_argument(
        "--group-size",
        type=int,
        default=DEFAULT_GROUP_SIZE,
        help="columns that share an int4 scale and minimum (default %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    config = convert_checkpoint(options.source, options.out, options.dtype, group_size=options.group_size)
    print(
        f"{options.out}: {config.model_type}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"vocabulary {config.vocab_size}, {config.dtype}"
    )
    engine = options.out.parent / "engine"
    print(f"next: inflight build {shlex.quote(str(options.out))} --out {shlex.quote(str(engine))}")
