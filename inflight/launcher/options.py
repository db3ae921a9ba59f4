"""The options of the commands that launch a server. Imports nothing that takes long."""

import argparse
from dataclasses import dataclass

READY_TIMEOUT = 300.0  # seconds until a server must be ready
EXIT_TIMEOUT = 3  # seconds that requests have to end by themselves when a server is stopped


@dataclass(frozen=True)
class RestartPolicy:
    """At most `max_restarts` in a row, the n-th `first_delay` · 2^(n-1) seconds after the end of the server; a server
    that has stayed up for `stable_after` seconds begins a new row."""

    max_restarts: int = 5
    first_delay: float = 1.0
    stable_after: float = 600.0

    def delay(self, restart: int) -> float:
        return self.first_delay * 2 ** (restart - 1)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that run_server takes, in upstream's spelling and in one with hyphens."""
    add = parser.add_argument
    add("--tritonserver", metavar="PATH", help="default: found on PATH, in /opt/tritonserver or in nvidia-pytriton")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        add(f"--{name}_port", f"--{name}-port", type=int, default=port, help=f"0: any free port (default: {port})")
    add("--log", action="store_true", help="log verbosely (level 3)")
    add("--log-file", "--log_file", metavar="FILE", help="where the log goes (default: a temporary file)")
    add(
        "--timeout",
        type=float,
        default=READY_TIMEOUT,
        metavar="SECONDS",
        help=f"how long the models may take to load (default: {READY_TIMEOUT:.0f})",
    )
    add(
        "--exit-timeout",
        "--exit_timeout",
        type=int,
        default=EXIT_TIMEOUT,
        metavar="SECONDS",
        help="how long requests may go on when the server is stopped; what still runs then ends with an error"
        f" (default: {EXIT_TIMEOUT})",
    )
    add(
        "--max-restarts",
        type=int,
        default=RestartPolicy.max_restarts,
        metavar="N",
        help="how often in a row a server is started again that died by a signal, or lost the process of a Python"
        f" model (default: {RestartPolicy.max_restarts})",
    )
    add("--no-restart", dest="max_restarts", action="store_const", const=0, help="the same as --max-restarts 0")


def add_upstream_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every version of upstream's launcher: those of add_server_arguments, and those below."""
    add = parser.add_argument
    add("--model_repo", required=True, metavar="DIR", help="model repository, as `inflight repo` writes it")
    add("--world_size", type=int, default=1, help="ranks of the engine (default: 1)")
    add_server_arguments(parser)
    without_effect = parser.add_argument_group(
        "upstream's, without effect",
        "no other server is in the way, one process serves every model, and MPI starts none",
    )
    for flags in (
        ("--force", "-f"),
        ("--multi-model",),
        ("--disable-spawn-processes",),
        ("--oversubscribe",),
        ("--no-mpi",),
        ("--trtllm_llmapi_launch",),
    ):
        without_effect.add_argument(*flags, action="store_true")
    without_effect.add_argument("--tensorrt_llm_model_name", metavar="NAMES")
    without_effect.add_argument("--multimodal_gpu0_cuda_mem_pool_bytes", type=int, metavar="N")
