"""The `inflight build` command."""

import argparse
import re
import shlex
from pathlib import Path

from inflight.checkpoint.weight_types import DTYPES
from inflight.engine.build import build_engine
from inflight.engine.config import DEVICES, KV_CACHE_DTYPES, BuildOptions
from inflight.engine.plan import (
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_BEAM_WIDTH,
    DEFAULT_MAX_NUM_TOKENS,
    DEFAULT_TOKENS_PER_BLOCK,
)

_UNITS = {
    "": 1,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="directory made by `inflight convert`")
    parser.add_argument("--out", type=Path, required=True, help="engine directory to make")
    parser.add_argument(
        "--max-batch-size", type=int, help=f"sequences that generate at once (default {DEFAULT_MAX_BATCH_SIZE})"
    )
    parser.add_argument("--max-num-tokens", type=int, help=f"tokens in one step (default {DEFAULT_MAX_NUM_TOKENS})")
    parser.add_argument(
        "--max-seq-len",
        type=int,
        help="prompt and generated tokens of one sequence (default: the model's context, or what the memory holds)",
    )
    parser.add_argument(
        "--max-beam-width",
        type=int,
        help=f"beams of one sequence, each of which counts as a sequence (default {DEFAULT_MAX_BEAM_WIDTH}, or the "
        "batch size if that is less)",
    )
    parser.add_argument(
        "--tokens-per-block",
        type=int,
        help=f"tokens of a KV-cache block, a power of two (default {DEFAULT_TOKENS_PER_BLOCK})",
    )
    parser.add_argument(
        "--kv-cache-memory",
        type=parse_bytes,
        metavar="BYTES",
        help="memory of the KV cache, such as 2GiB (default: half of what the machine has left)",
    )
    parser.add_argument(
        "--logits-memory",
        type=parse_bytes,
        metavar="BYTES",
        help="memory of the context and generation logits that requests ask for; 0 refuses them (default: those of one "
        "sequence of full length, or a quarter of what the machine has left)",
    )
    parser.add_argument(
        "--kv-cache-dtype",
        choices=("auto", *KV_CACHE_DTYPES),
        default="auto",
        help="type of keys and values (default: bfloat16 where weights are int8 or int4, else float32)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="type of the weights (default: the checkpoint's)"
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="what the engine runs on (default %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    choices = BuildOptions(
        max_batch_size=options.max_batch_size,
        max_num_tokens=options.max_num_tokens,
        max_seq_len=options.max_seq_len,
        max_beam_width=options.max_beam_width,
        tokens_per_block=options.tokens_per_block,
        kv_cache_memory=options.kv_cache_memory,
        logits_memory=options.logits_memory,
        kv_cache_dtype=options.kv_cache_dtype,
        dtype=options.dtype,
        device=options.device,
    )
    config = build_engine(options.checkpoint, options.out, choices)
    print(f"{options.out}: {config.pretrained_config.model_type} engine for {config.build_config.device}")
    repository = options.out.parent / "repository"
    print(f"next: inflight repo {shlex.quote(str(options.out))} --out {shlex.quote(str(repository))}")


def parse_bytes(text: str) -> int:
    """ "512MiB", "2G" or "1.5GB" → bytes; K, M, G, T are powers of 1024 unless followed by B alone."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write bytes, or a number with KiB, MiB or GiB")
    number, prefix, suffix = match.group(1), match.group(2).upper(), (match.group(3) or "").upper()
    unit = prefix + "B" if suffix == "B" and prefix else prefix
    return int(float(number) * _UNITS[unit])
