"""benchmarks/cpu: its arithmetic, its requests and its workers, without peers and mostly on models of no interest."""

import sys
from pathlib import Path

import pytest

from inflight.errors import InflightError

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "cpu"
sys.path.append(str(BENCHMARK))

import sweep as curves  # noqa: E402
from gguf import GGMLQuantizationType as GgmlType  # noqa: E402
from measured_models import Model, prepare_gguf  # noqa: E402
from random_llama import LlamaShape, write_random_llama  # noqa: E402
from roofline import ModelCost, context_bound, generation_bound, tokens_per_second_bound  # noqa: E402
from table import OURS, Setup, make_row, measure_rows  # noqa: E402
from worker import Worker  # noqa: E402
from works import WORKS, Work, requests  # noqa: E402

COST = ModelCost(
    weight_bytes=1_000_000,
    layer_weights=1_500_000,
    output_weights=500_000,
    kv_bytes=1_000,
    attention_operations=4_000,
    gemm_type="int8",
)
CEILINGS = {
    "isa": "avx512",
    "read_gb_per_s": 10.0,
    "gemm_gop_per_s": {"float32": 100.0, "bfloat16": 200.0, "int8": 400.0},
}


@pytest.fixture(scope="module")
def model(tiny_engine) -> Model:
    engine = tiny_engine("llama", max_batch_size=8, max_num_tokens=64)
    return Model(engine / "no.gguf", engine, vocabulary=100)


@pytest.fixture
def setup(tmp_path) -> Setup:
    return Setup({OURS: Path(sys.executable)}, threads=1, repeats=2, seed=0, log=tmp_path / "log")


def test_every_engine_gets_the_same_requests_and_every_run_others():
    work = Work("model", "generation", 16, 128, 64, target=2.0)
    prompts, outputs = requests(work, 1000, seed=1, run=2)
    assert (prompts, outputs) == requests(work, 1000, seed=1, run=2)
    assert prompts != requests(work, 1000, seed=1, run=3)[0] and prompts != requests(work, 1000, seed=2, run=2)[0]
    assert len(set(map(len, prompts))) > 1 and all(112 <= len(prompt) <= 144 for prompt in prompts)
    assert all(56 <= output <= 72 for output in outputs)
    assert max(map(max, prompts)) < 1000


def test_context_work_generates_one_token():
    for work in (work for works in WORKS.values() for work in works if work.phase == "context"):
        assert set(requests(work, 100, seed=0, run=0)[1]) == {1}


def test_one_sequence_is_bound_by_the_weights_and_the_kv_cache():
    bound = generation_bound(COST, CEILINGS, batch=1, context=100)
    assert bound.ceiling == "bandwidth"
    assert bound.seconds == pytest.approx((1_000_000 + 100 * 1_000) / 10e9)


def test_many_sequences_are_bound_by_their_products():
    bound = generation_bound(COST, CEILINGS, batch=100, context=10)
    assert bound.ceiling == "gemm"
    assert bound.seconds == pytest.approx(2 * 2_000_000 * 100 / 400e9 + 100 * 10 * 4_000 / 200e9)


def test_prompts_project_only_their_last_tokens_and_attend_to_the_past():
    bound = context_bound(COST, CEILINGS, batch=2, tokens=1000)
    assert bound.ceiling == "gemm"
    linear = 2 * 2 * (1000 * 1_500_000 + 500_000)
    assert bound.seconds == pytest.approx(linear / 400e9 + 2 * 1000 * 1001 / 2 * 4_000 / 200e9)
    work = Work("model", "context", 2, 1000, 1, target=1.0)
    assert tokens_per_second_bound(COST, CEILINGS, work) == (pytest.approx(2000 / bound.seconds), "gemm")


def test_a_machine_without_bfloat16_attends_in_float32():
    ceilings = {**CEILINGS, "gemm_gop_per_s": {"float32": 100.0, "bfloat16": None, "int8": 400.0}}
    bound = context_bound(COST, ceilings, batch=1, tokens=1000)
    assert bound.seconds == pytest.approx(2 * (1.5e9 + 5e5) / 400e9 + 1000 * 1001 / 2 * 4_000 / 100e9)


def test_with_amx_prompts_are_multiplied_in_bfloat16():
    bound = context_bound(COST, {**CEILINGS, "isa": "amx"}, batch=1, tokens=1000)
    assert bound.seconds == pytest.approx(2 * (1.5e9 + 5e5) / 200e9 + 1000 * 1001 / 2 * 4_000 / 200e9)


def test_the_cost_of_an_engine_is_that_of_what_a_step_reads(model):
    cost = ModelCost.of_engine(model.engine)
    size = (model.engine / "rank0.safetensors").stat().st_size
    assert 0.3 * size < cost.weight_bytes < size and cost.gemm_type == "float32"
    assert 4 * (cost.layer_weights + cost.output_weights) == pytest.approx(cost.weight_bytes, rel=0.1)


@pytest.mark.parametrize(
    "target_of, target, met", [("ratio", 2.0, True), ("ratio", 2.6, False), ("roofline_share", 0.5, True)]
)
def test_a_row_compares_with_the_better_peer_and_with_the_roofline(target_of, target, met):
    runs = {OURS: [40.0, 50.0, 90.0], "llama_cpp": [1.0, 10.0, 11.0], "openvino": [20.0, 20.0, 30.0]}
    bounds = [(50.0, "bandwidth"), (100.0, "bandwidth"), (225.0, "bandwidth")]  # shares 0.8, 0.5, 0.4
    row = make_row(Work("model", "generation", 1, 8, 8, target, target_of), runs, bounds)
    assert (row["ours"], row["llama_cpp"], row["openvino"]) == (50.0, 10.0, 20.0)
    assert (row["ratio"], row["roofline_share"], row["met"]) == (2.5, 0.5, met)


def test_a_row_without_peers_has_no_ratio():
    row = make_row(Work("model", "generation", 1, 8, 8, 2.0), {OURS: [5.0]}, [(10.0, "gemm")])
    assert (row["ratio"], row["met"], row["openvino"], row["roofline_share"]) == (None, None, None, 0.5)


def test_rows_and_curves_of_an_engine(smollm2_engine, setup, monkeypatch):
    # A tiny model generates hundreds of tokens before the delivery thread first runs, and they arrive all at once.
    engine = smollm2_engine()
    model = Model(engine / "no.gguf", engine, vocabulary=49152)
    works = [Work("smollm2", "generation", 4, 16, 24, 2.0), Work("smollm2", "context", 2, 64, 1, 2.0)]
    rows, versions = measure_rows(works, model, lambda: CEILINGS, setup, report=lambda row: None)
    assert [row["work"] for row in rows] == [str(work) for work in works]
    assert all(len(row["runs"][OURS]) == 2 and row["ours"] > 0 and row["roofline_share"] > 0 for row in rows)
    assert versions[OURS]["version"]

    monkeypatch.setattr(curves, "BATCHES", (1, 2))
    monkeypatch.setattr(curves, "CONTEXTS", (240,))
    monkeypatch.setattr(curves, "OUTPUT", 24)
    points = curves.sweep(model, "smollm2", {1: CEILINGS, 2: CEILINGS}, setup, report=lambda point: None)
    assert [(p["threads"], p["against"], p["value"]) for p in points] == [
        (threads, *at) for threads in (1, 2) for at in (("batch", 1), ("batch", 2), ("context", 240))
    ]
    for point in points:
        sequences = point["value"] if point["against"] == "batch" else 1
        assert point["step_ms"] * point["generation_tokens_per_s"] == pytest.approx(1000 * sequences)


def test_a_worker_says_why_it_ended(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(InflightError, match=f"inflight_worker.py: .*no-engine.*; its log is {log}"):
        Worker(sys.executable, "inflight_worker.py", [tmp_path / "no-engine", 1], log)
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("matrices, dtype", [(GgmlType.Q8_0, "int8"), (GgmlType.Q4_0, "int4")])
def test_a_random_llama_is_a_model_that_we_read(matrices, dtype, tmp_path, setup):
    shape = LlamaShape(hidden=64, layers=1, heads=2, kv_heads=1, intermediate=96, vocabulary=300, positions=128)
    write_random_llama(tmp_path / "model.gguf", shape, matrices)
    model = prepare_gguf(tmp_path / "model.gguf", tmp_path)
    assert model.vocabulary == 300
    cost = ModelCost.of_engine(model.engine)
    assert cost.layer_weights == 64 * (128 + 64) + 3 * 64 * 96  # q, k, v and the output; gate, up, down
    assert cost.gemm_type == "int8" and dtype in (model.engine / "config.json").read_text()
    with Worker(sys.executable, "inflight_worker.py", [model.engine, 1], setup.log) as worker:
        assert worker.generate([[1, 2, 3], [299]], [5, 2]).num_tokens == [5, 2]
