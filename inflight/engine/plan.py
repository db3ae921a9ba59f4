"""The memory plan: what an engine will take and what fits, before anything is built."""

from dataclasses import dataclass

from inflight.checkpoint.config import ModelConfig
from inflight.engine.config import MIN_SEQ_LEN, BuildConfig, BuildOptions, option
from inflight.engine.sizes import activation_bytes, blocks_for, kv_bytes_per_token, logits_bytes_per_token
from inflight.errors import InflightError

# Sequences that generate at once. A CPU's generation rate levels off at a few dozen, where reading the
# weights no longer dominates; more would only lengthen the time between a stream's tokens. (Servers on GPUs
# default to 256 and more.)
DEFAULT_MAX_BATCH_SIZE = 64
# Beams only take places of the batch; wider searches than this hardly ever find better text (arXiv:1904.09751).
DEFAULT_MAX_BEAM_WIDTH = 8
# vLLM's default for a server; a longer context phase is cut into chunks, between which others generate.
DEFAULT_MAX_NUM_TOKENS = 2048
# TensorRT-LLM's default.
DEFAULT_TOKENS_PER_BLOCK = 32
# Left to the server process itself: Triton, its Python backends, tokenizers.
SERVER_MEMORY = 1 << 30
# Of what remains, to be a good neighbor on a machine that the engine does not own.
KV_CACHE_SHARE = 0.5
# Of what then remains, for logits that requests ask for.
LOGITS_SHARE = 0.25


@dataclass(frozen=True)
class Machine:
    """available_memory: bytes that can be taken. num_threads: threads the engine will run."""

    available_memory: int
    num_threads: int


@dataclass(frozen=True)
class MemoryPlan:
    """What an engine of `config` takes, in bytes, on a machine with `available` bytes to give."""

    config: BuildConfig
    weights: int
    activations: int
    kv_bytes_per_token: int
    logits_bytes_per_token: int
    available: int

    @property
    def num_blocks(self) -> int:
        return self.config.kv_cache_bytes // (self.kv_bytes_per_token * self.config.tokens_per_block)

    @property
    def num_full_sequences(self) -> int:
        """Sequences of max_seq_len tokens that the KV cache holds at once."""
        return self.num_blocks // blocks_for(self.config.max_seq_len, self.config.tokens_per_block)

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.config.kv_cache_bytes + self.config.logits_bytes

    def __str__(self) -> str:
        config = self.config
        rows = (
            ("weights", self.weights, ""),
            (
                "activations",
                self.activations,
                f"{config.max_num_tokens} tokens and {config.max_batch_size} sequences a step",
            ),
            (
                "KV cache",
                config.kv_cache_bytes,
                f"{self.kv_bytes_per_token:,} bytes a token; {self.num_blocks:,} blocks of {config.tokens_per_block} "
                f"tokens hold {self.num_full_sequences:,} sequences of {config.max_seq_len:,} tokens (max_seq_len)",
            ),
            (
                "logits",
                config.logits_bytes,
                f"that requests may hold at once; {self.logits_bytes_per_token:,} bytes a token",
            ),
            ("total", self.total, f"of {format_bytes(self.available)} available on this machine"),
        )
        lines = ["memory plan"]
        lines += [f"  {name:<12} {format_bytes(size):>10}  {note}".rstrip() for name, size, note in rows]
        if self.total + SERVER_MEMORY > self.available:
            lines.append(
                f"  warning: with {format_bytes(SERVER_MEMORY)} for the server this is more than is available here; "
                f"lower {option('kv_cache_memory')}, {option('logits_memory')}, {option('max_num_tokens')} or "
                f"{option('max_batch_size')}"
            )
        return "\n".join(lines)


def make_plan(
    model: ModelConfig, options: BuildOptions, weights: int, machine: Machine, is_quantized: bool = False
) -> MemoryPlan:
    """Fills in what the options leave open, and checks that at least one sequence fits.

    weights: bytes of the packed weights (sizes.packed_bytes and sizes.vector_bytes). is_quantized: some are int8 or
    int4.
    Raises InflightError when no sequence of max_seq_len fits, naming the option and the value that would help.
    """
    options.check()
    default_batch_size = max(DEFAULT_MAX_BATCH_SIZE, options.max_beam_width or 1)
    max_batch_size = options.max_batch_size or min(default_batch_size, options.max_num_tokens or default_batch_size)
    max_num_tokens = options.max_num_tokens or max(DEFAULT_MAX_NUM_TOKENS, max_batch_size)
    tokens_per_block = options.tokens_per_block or DEFAULT_TOKENS_PER_BLOCK
    activations = activation_bytes(model, max_batch_size, max_num_tokens, machine.num_threads)
    kv_cache_dtype = options.kv_cache_dtype
    if kv_cache_dtype == "auto":
        kv_cache_dtype = "bfloat16" if is_quantized and tokens_per_block > 1 else "float32"
    token_bytes = kv_bytes_per_token(model, kv_cache_dtype)
    block_bytes = token_bytes * tokens_per_block
    max_seq_len = _wanted_seq_len(model, options)
    sequence_bytes = blocks_for(max_seq_len, tokens_per_block) * block_bytes

    spare = machine.available_memory - SERVER_MEMORY - weights - activations
    if options.kv_cache_memory is not None:
        kv_cache_bytes = options.kv_cache_memory
    else:
        if spare < block_bytes:
            _refuse_machine(machine, weights, activations, block_bytes)
        # At least one sequence if there is room for it; no more than the largest batch can use
        kv_cache_bytes = max(int(spare * KV_CACHE_SHARE), min(spare, sequence_bytes))
        kv_cache_bytes = min(kv_cache_bytes, max_batch_size * sequence_bytes)
    num_blocks = kv_cache_bytes // block_bytes
    if options.max_seq_len is None:
        max_seq_len = min(max_seq_len, max(num_blocks * tokens_per_block, MIN_SEQ_LEN))
    if num_blocks < blocks_for(max_seq_len, tokens_per_block):
        _refuse_cache(options, kv_cache_bytes, max_seq_len, tokens_per_block, block_bytes)
    config = BuildConfig(
        device=options.device,
        max_batch_size=max_batch_size,
        max_num_tokens=max_num_tokens,
        max_seq_len=max_seq_len,
        tokens_per_block=tokens_per_block,
        kv_cache_bytes=num_blocks * block_bytes,
        logits_bytes=_logits_bytes(model, options, max_seq_len, spare - num_blocks * block_bytes),
        kv_cache_dtype=kv_cache_dtype,
        max_beam_width=options.max_beam_width or min(DEFAULT_MAX_BEAM_WIDTH, max_batch_size),
    )
    return MemoryPlan(
        config, weights, activations, token_bytes, logits_bytes_per_token(model), machine.available_memory
    )


def position_limit(model: ModelConfig) -> int | None:
    """Positions that the rotary embedding reaches, as vLLM derives them; None: as many as one likes."""
    rope, positions = model.rope, model.max_position_embeddings
    if rope["type"] == "dynamic":
        return None
    if rope["type"] == "linear":
        return int(positions * rope["factor"])
    if rope["type"] == "yarn":
        original = rope.get("original_max_position_embeddings", positions)
        return max(positions, int(original * rope.get("factor", positions / original)))
    return positions


def format_bytes(size: float) -> str:
    """123456789 → "117.7 MiB"."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} GiB"


def _wanted_seq_len(model: ModelConfig, options: BuildOptions) -> int:
    """The model's whole context unless less is asked for: a paged KV cache costs only what sequences use."""
    limit = position_limit(model)
    if options.max_seq_len is None:
        return limit or int(model.max_position_embeddings * model.rope["factor"])
    if limit is not None and options.max_seq_len > limit:
        raise InflightError(
            f"{option('max_seq_len')} is {options.max_seq_len}; this model's positions end at {limit}: "
            f"pass {option('max_seq_len')} {limit} or less"
        )
    return options.max_seq_len


def _logits_bytes(model: ModelConfig, options: BuildOptions, max_seq_len: int, spare: int) -> int:
    """What one sequence of full length can ask for, if a share of the memory that is left holds it."""
    if options.logits_memory is not None:
        return options.logits_memory
    return max(0, min(max_seq_len * logits_bytes_per_token(model), int(spare * LOGITS_SHARE)))


def _refuse_machine(machine: Machine, weights: int, activations: int, block_bytes: int) -> None:
    needed = weights + activations + SERVER_MEMORY + block_bytes
    raise InflightError(
        f"weights take {format_bytes(weights)}, activations {format_bytes(activations)}, the server "
        f"{format_bytes(SERVER_MEMORY)} and one KV-cache block {format_bytes(block_bytes)}, but this machine has "
        f"{format_bytes(machine.available_memory)} available: lower {option('max_num_tokens')} or "
        f"{option('max_batch_size')}, choose a narrower {option('dtype')}, or pass {option('kv_cache_memory')} to "
        f"build here for a machine with at least {format_bytes(needed)}"
    )


def _refuse_cache(
    options: BuildOptions, kv_cache_bytes: int, max_seq_len: int, tokens_per_block: int, block_bytes: int
) -> None:
    needed = blocks_for(max_seq_len, tokens_per_block) * block_bytes
    held = kv_cache_bytes // block_bytes * tokens_per_block
    source = option("kv_cache_memory") if options.kv_cache_memory is not None else "the memory available here"
    remedies = [f"{option('kv_cache_memory')} {-(-needed // (1 << 20))}MiB or more"]
    if held >= MIN_SEQ_LEN:
        remedies.append(f"{option('max_seq_len')} {held} or less")
    elif tokens_per_block > 1 and kv_cache_bytes >= 2 * block_bytes // tokens_per_block:
        remedies.append(f"a smaller {option('tokens_per_block')}")
    raise InflightError(
        f"the KV cache cannot hold one sequence: {max_seq_len} tokens take {format_bytes(needed)}, {source} gives "
        f"{format_bytes(kv_cache_bytes)}: pass {', or '.join(remedies)}"
    )
