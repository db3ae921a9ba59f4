"""The `inflight repo` command."""

import argparse
import os
import shlex
from pathlib import Path

from inflight.errors import InflightError
from inflight.repository.generate import MODELS, generate_llmapi_repository, generate_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", type=Path, help="engine directory, as `inflight build` makes it")
    parser.add_argument("--out", type=Path, required=True, help="model repository to make")
    parser.add_argument(
        "--from",
        dest="old_repository",
        type=Path,
        metavar="OLD",
        help="model repository of the TensorRT-LLM backend: its values are kept, its preprocessing, postprocessing and"
        " tensorrt_llm_bls replaced, other models of it copied",
    )
    parser.add_argument(
        "--draft-engine", type=Path, metavar="DIR", help="engine of a smaller model with the same tokenizer, for drafts"
    )
    parser.add_argument(
        "--llmapi",
        action="store_true",
        help="the repository of one model that TensorRT-LLM's users of its LLM API have, in the place of the five",
    )
    parser.add_argument("--num-draft-tokens", type=int, metavar="N", help="drafts of each sequence in a step; 4")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a template variable that is to differ from what follows from the engine; may be repeated",
    )


def run(options: argparse.Namespace) -> None:
    overrides = dict(_parse_override(text) for text in options.overrides) | _draft_engine_values(options)
    if options.llmapi and options.old_repository is not None:
        raise InflightError("--llmapi takes no values --from an old repository, which has five models")
    if options.llmapi:
        generate_llmapi_repository(options.engine, options.out, **overrides)
    else:
        generate_repository(options.engine, options.out, options.old_repository, **overrides)
    if options.old_repository is not None:
        from inflight.repository.old_repository import describe  # needs tritonclient

        print("\n".join(describe(options.old_repository, MODELS)))
    print(f"{options.out}: model repository of {options.engine}")
    print(f"next: inflight serve {shlex.quote(str(options.out))}")


def _draft_engine_values(options: argparse.Namespace) -> dict[str, object]:
    """The template variables of --draft-engine and --num-draft-tokens."""
    values: dict[str, object] = {}
    if options.draft_engine is not None:
        values["draft_engine_dir"] = os.path.abspath(options.draft_engine)
        values["tensorrt_llm_draft_model_name"] = ""  # of an old repository: the engine stands in its place
    if options.num_draft_tokens is not None:
        if options.draft_engine is None:
            raise InflightError(f"--num-draft-tokens {options.num_draft_tokens} needs --draft-engine")
        if options.num_draft_tokens < 1:
            raise InflightError(f"--num-draft-tokens is {options.num_draft_tokens}; it must be at least 1")
        values["num_draft_tokens"] = options.num_draft_tokens
    return values


def _parse_override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InflightError(f"--set {text}: expected KEY=VALUE")
    return key, value
