"""The ahead-of-time compiler: every way in which a kernel, or a launch of it, can be wrong says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import triton

HERE = Path(__file__).parent
SOURCE = HERE / "scale_rows.py"
CUDA_HEADERS = Path(triton.__file__).parent / "backends" / "nvidia" / "include"  # come with Triton


def run_compiler(*arguments, cache: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "inflight.kernels.compile", *map(str, arguments), "--cache", str(cache)]
    return subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, env=environment)


def compiled(*arguments, cache: Path) -> str:
    run = run_compiler(*arguments, cache=cache)
    assert run.returncode == 0, run.stderr
    return run.stdout


def refusal(*arguments, cache: Path) -> str:
    run = run_compiler(*arguments, cache=cache)
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    return run.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cubins")


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, cache) -> Path:
    """The folder with scale_rows for sm_80 and sm_90, and launcher_check compiled against it."""
    out = tmp_path_factory.mktemp("launcher")
    assert "1 kernels, 20 variants for sm_90,sm_80" in compiled(
        SOURCE, "--target", "sm_90,sm_80", "--out", out, cache=cache
    )
    sources = [out / "scale_rows.cc", out / "kernel_launch.cc", HERE / "launcher_check.cc"]
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-isystem", CUDA_HEADERS, "-I", out]
    command = ["g++", *flags, *sources, "-o", out / "launcher_check"]
    build = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return out


def launches(launcher: Path, *arguments: str) -> dict[str, str]:
    run = subprocess.run([launcher / "launcher_check", *arguments], capture_output=True, text=True, check=True)
    return dict(line.split(": ", 1) for line in run.stdout.splitlines())


@pytest.fixture(scope="module")
def on_hopper(launcher) -> dict[str, str]:
    return launches(launcher, "90")


def test_a_launch_passes_grid_threads_and_arguments(on_hopper):
    assert on_hopper["load"] == "ok load scale_rows"
    assert on_hopper["first"] == "ok launch 5x1x1 of 32 rows=5 size=48 factor=2.5 scratch=(nil)"


def test_another_tile_type_or_key_is_another_cubin_with_the_same_symbol(on_hopper):
    for name in ("larger", "float32", "repeated", "minus"):
        assert on_hopper[name].startswith("ok load scale_rows launch 5x1x1 of "), name
    assert "of 64 rows=5 size=160" in on_hopper["larger"]
    assert "of 64 " in on_hopper["repeated"]  # the first tile is for REPEATS == 1 alone


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dtype", "scale_rows for sm_90: dtype is fp16; it was compiled for bf16, fp32"),
        ("key", "scale_rows for sm_90: REPEATS is 2; it was compiled for 1, 3"),
        ("combination", "scale_rows for sm_90: the combination dtype = bf16, SIGN = minus, REPEATS = 3"),
        ("pointer", "scale_rows: input points to address "),
        ("number", "scale_rows: size is 40, which is no multiple of 16"),
        (
            "tile",
            "scale_rows: no tile for sm_90 fits these arguments; there are tiles for: "
            "REPEATS == 1 and size <= 64; size <= 256",
        ),
        ("negative", "scale_rows: the grid is -1 x 1 x 1"),
        ("driver", "scale_rows could not be launched: what the driver says (CUDA driver error 701)"),
    ],
)
def test_a_launch_that_nothing_was_compiled_for_is_an_error(on_hopper, name, message):
    assert on_hopper[name].startswith(message)
    assert "launch " not in on_hopper[name]


def test_an_empty_grid_launches_nothing(on_hopper):
    assert on_hopper["empty"] == "ok"


def test_tuned_choices_are_functions(on_hopper):
    assert on_hopper["choice"] == "5 5"


def test_machine_code_runs_on_later_gpus_of_its_generation(launcher):
    assert launches(launcher, "86")["first"].startswith("ok launch")


@pytest.mark.parametrize("capability", ["75", "100"])
def test_a_gpu_without_machine_code_is_an_error(launcher, capability):
    every = launches(launcher, capability)
    expected = f"scale_rows was compiled for sm_80, sm_90; this GPU is sm_{capability}: compile it with --target"
    assert every["load"].startswith(expected) and every["first"].startswith(expected)


def test_a_driver_without_the_entry_points_is_an_error(launcher):
    assert launches(launcher, "90", "missing")["first"].startswith(
        "scale_rows: the CUDA driver has no cuLaunchKernelEx"
    )


def test_header_documents_the_arguments(launcher):
    header = (launcher / "scale_rows.h").read_text()
    assert "// Rows times a factor.\n// Not what anybody needs.\nstruct ScaleRows {" in header
    assert "  const void* input;  // [rows, size]\n" in header and "  float factor;" in header


def test_compiled_results_are_cached_by_content(tmp_path, cache, launcher):
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    written = {path.name: path.stat().st_mtime_ns for path in launcher.iterdir()}
    compiled(SOURCE, "--target", "sm_80,sm_90", "--out", launcher, cache=cache)
    assert before == {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert written == {path.name: path.stat().st_mtime_ns for path in launcher.iterdir()}

    copy = tmp_path / "elsewhere.py"  # the same content elsewhere in another file
    copy.write_text("\n\n" + SOURCE.read_text())
    compiled(copy, "--target", "sm_90", "--set", "dtype=bf16", "--set", "SIGN=plus", cache=cache)
    assert before.keys() == {path.name for path in cache.iterdir()}
    copy.write_text(SOURCE.read_text().replace("x * factor", "x + factor"))
    compiled(copy, "--target", "sm_90", "--set", "dtype=bf16", "--set", "SIGN=plus", "--set", "REPEATS=3", cache=cache)
    assert len(list(cache.iterdir())) == len(before) + 2


LARGE = (
    SOURCE.read_text()
    .replace(
        "for _ in range(REPEATS):\n",
        """for _ in range(REPEATS):
        tile = tl.zeros([TILE, TILE], tl.float32) + x[None, :]
        x += tl.sum(tl.dot(tile.to(tl.float16), tl.trans(tile).to(tl.float16)), 0)
""",
    )
    .replace("num_warps=2", "num_warps=16")
)


def test_shared_memory_over_the_targets_limit_names_the_block_sizes(tmp_path, cache):
    source = tmp_path / "large.py"
    source.write_text(LARGE)
    only = ["--set", "dtype=bf16", "--set", "SIGN=plus", "--set", "REPEATS=3"]
    error = refusal(source, "--target", "sm_89", *only, cache=cache)
    assert "scale_rows for sm_89 (dtype = bf16, SIGN = plus, REPEATS = 3; TILE = 256" in error
    assert "bytes of shared memory; a thread block of sm_89 has 101376: lower TILE, num_stages in its tile" in error
    # What was found too large once is found so again, from the cache.
    assert refusal(source, "--target", "sm_89", *only, cache=cache) == error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x * -factor", "x * undefined", "scale_rows for sm_90 (dtype = bf16, SIGN = minus, REPEATS = 1"),
        ('"size": ("i32 % 16"', '"size": ("int % 16"', "size has the unknown type 'int'"),
        ('{"TILE": 64}', '{"SIZE": 64}', "the declaration of scale_rows lacks TILE"),
        ('when="size <= 256"', 'when="width <= 256"', "the expression 'width <= 256' reads width"),
        ('cdiv(size, TILE)"', 'size ** 2"', "the expression 'size ** 2' holds 'size ** 2'"),
        ('"cdiv(size, TILE)"', '"cdiv(size"', "the expression 'cdiv(size' is not valid"),
        ('"rows": ("i32", ""),', "", "the declaration of scale_rows lacks rows"),
        ("SCALE_ROWS = Kernel(", "dict(function=", "declares no kernel"),
    ],
)
def test_a_wrong_declaration_or_kernel_is_named(tmp_path, cache, old, new, message):
    source = tmp_path / "wrong.py"
    assert old in SOURCE.read_text()
    source.write_text(SOURCE.read_text().replace(old, new))
    error = refusal(
        source,
        "--target",
        "sm_90",
        "--set",
        "SIGN=minus",
        "--set",
        "REPEATS=1",
        "--set",
        "dtype=bf16",
        "--out",
        tmp_path / "out",
        cache=cache,
    )
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "sm_42"], "'sm_42' is not a known target; known are sm_80"),
        (["--target", "sm_90", "--only", "gemm"], "there is no kernel gemm; there are scale_rows"),
        (["--target", "sm_90", "--set", "SIGN=both"], "--set SIGN: 'both' is none of plus, minus"),
        (["--target", "sm_90", "--set", "REPEATS=x"], "--set REPEATS: x are not int values"),
        (["--target", "sm_90", "--set", "dtype=float"], "--set dtype: 'float' is no element type"),
        (
            ["--target", "sm_90", "--set", "WIDTH=4"],
            "no kernel has a type or key WIDTH; there are REPEATS, SIGN",
        ),
        (
            ["--target", "sm_90", "--set", "SIGN=minus", "--set", "REPEATS=3", "--out", "{out}"],
            "scale_rows has no variant for sm_90",
        ),
    ],
)
def test_wrong_options_are_named(tmp_path, cache, arguments, message):
    options = [text.format(out=tmp_path) for text in arguments]
    assert message in refusal(SOURCE, *options, cache=cache)


def test_a_source_that_does_not_exist(tmp_path, cache):
    assert "does not exist" in refusal(tmp_path / "none.py", "--target", "sm_90", cache=cache)


def test_own_kernels_compile_and_their_launchers_with_them(tmp_path, cache):
    """A subset: what one model in bfloat16 needs, but for what takes long."""
    only = [f"--only={name}" for name in ("rms_norm", "gated_activation", "generation_attention")]
    sets = [
        "dtype=bf16",
        "cache=bf16",
        "HEAD_SIZE=64",
        "ADD_RESIDUAL=true",
        "ACTIVATION=silu",
        "GATED=true",
        "SCORES=plain",
    ]
    compiled("--target", "sm_90", *only, *(f"--set={each}" for each in sets), "--out", tmp_path, cache=cache)
    sources = sorted(tmp_path.glob("*.cc"))
    assert len(sources) == 4
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-isystem", CUDA_HEADERS]
    for source in sources:
        build = subprocess.run(["g++", *map(str, flags), str(source)], capture_output=True, text=True)
        assert build.returncode == 0, build.stderr


def cuda_sources() -> list[Path]:
    return sorted((Path(__file__).parents[3] / "backend" / "engine").rglob("*.cu"))


@pytest.mark.parametrize("source", cuda_sources(), ids=lambda path: path.name)
def test_cuda_sources_compile(source, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip(f"not compiled, since there is no nvcc: {source.name}")
    # To PTX: what follows takes the better part of a minute and finds no mistakes of ours.
    root = Path(__file__).parents[3]
    includes = ["-I", root / "backend", "-I", root / "inflight" / "kernels" / "compiler" / "launch"]
    command = [nvcc, "-std=c++20", "-arch=sm_90", "-ptx", *includes, source, "-o", tmp_path / "object.ptx"]
    build = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
