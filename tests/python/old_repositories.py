"""Model repositories of the shape that TensorRT-LLM's had in 0.6 to 0.8, made of ours."""

import re
import shutil
from pathlib import Path

# Integers without a sign in 0.5 and 0.6, by model.
UNSIGNED = {
    "tensorrt_llm": ("request_output_len end_id pad_id beam_width runtime_top_k min_length prompt_vocab_size").split(),
    "ensemble": "max_tokens end_id pad_id beam_width top_k min_length prompt_vocab_size".split(),
    "preprocessing": ["REQUEST_OUTPUT_LEN"],
    "postprocessing": [],
}
LOG_PROBS = {"cum_log_probs": "CUM_LOG_PROBS", "output_log_probs": "OUTPUT_LOG_PROBS"}


def make_old(repository: Path) -> None:
    """Makes the four models what they were, see below; there was no tensorrt_llm_bls."""
    shutil.rmtree(repository / "tensorrt_llm_bls")
    make_old_generation(repository / "tensorrt_llm" / "config.pbtxt")
    for model in ("ensemble", "preprocessing", "postprocessing"):
        _edit(repository / model / "config.pbtxt", *((_without_sign(name)) for name in UNSIGNED[model]))
    _edit(
        repository / "postprocessing" / "config.pbtxt",
        *((rf'(name: "{name}" .*?)  optional: true', r"\1") for name in LOG_PROBS.values()),
    )
    _edit(repository / "ensemble" / "config.pbtxt", *_old_ensemble_edits())


def make_old_generation(config: Path) -> None:
    """Of tensorrt_llm: integers without a sign, neither draft_logits nor sequence_index, and an input that nobody
    reads."""
    nobodys = '  { name: "CORRID"  data_type: TYPE_UINT64  dims: [ 1 ]  optional: true },'
    _edit(
        config,
        *(_without_sign(name) for name in UNSIGNED["tensorrt_llm"]),
        (r'  \{ name: "(draft_logits|sequence_index)" .*\n', ""),
        (r"input \[\n", rf"\g<0>{nobodys}\n"),
    )


def _without_sign(name: str) -> tuple[str, str]:
    return rf'(name: "{name}"  data_type: )TYPE_INT32', r"\1TYPE_UINT32"


def _old_ensemble_edits() -> list[tuple[str, str]]:
    """End and pad id do not pass through preprocessing, and log-probs pass through postprocessing, which needs them."""
    edits = [(r'.*"sequence_index".*\n', "")]
    edits += [(rf' *(in|out)put_map {{ key: "(OUT_)?{name}" .*\n', "") for name in ("END_ID", "PAD_ID")]
    edits += [(f'value: "_OUT_{name.upper()}"', f'value: "{name}"') for name in ("end_id", "pad_id")]
    for name, tensor in LOG_PROBS.items():
        edits += [
            (f'(output_map {{ key: "{name}"  value: )"{name}"', rf'\1"_{tensor}"'),
            (
                r'( *)input_map \{ key: "TOKENS_BATCH" .*\n',
                rf'\g<0>\1input_map {{ key: "{tensor}"  value: "_{tensor}" }}'
                rf'\n\1output_map {{ key: "OUT_{tensor}"  value: "{name}" }}\n',
            ),
        ]
    return edits


def _edit(config: Path, *edits: tuple[str, str]) -> None:
    text = config.read_text()
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text)
        assert count, f"{config} has no {pattern}"
    config.write_text(text)
