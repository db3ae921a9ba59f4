"""Clients of TensorRT-LLM's Triton backend from 0.5 on, as they send their requests and read the answers: its own, and
those of LangChain and LiteLLM. In words of our own; docs/migration.md says with which of the originals it was tried."""

import queue

import http_client
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from old_repositories import make_old
from tritonclient.utils import np_to_triton_dtype

ENSEMBLES = ["ensemble", "tensorrt_llm_bls"]
PROMPT = "a b c"
MAX_TOKENS = 12


def tensor(client, name: str, array: np.ndarray):
    tensor = client.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def text(*texts: str) -> np.ndarray:
    return np.array([texts], object)


def request(prompt: str = PROMPT, max_tokens: int = MAX_TOKENS, integer=np.int32, **others) -> dict[str, np.ndarray]:
    """As upstream's clients write it: everything is [1, 1], whatever batch dimension the model has."""
    types = {bool: np.bool_, int: integer, float: np.float32}
    arrays = {"text_input": text(prompt), "max_tokens": np.array([[max_tokens]], integer)}
    for name, value in others.items():
        arrays[name] = value if isinstance(value, np.ndarray) else np.array([[value]], types[type(value)])
    return arrays


def stream(port: int, model: str, arrays: dict[str, np.ndarray], outputs=None) -> list[grpcclient.InferResult]:
    """All responses of one request on a gRPC stream that is closed before they are read."""
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"localhost:{port}") as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        inputs = [tensor(grpcclient, *item) for item in arrays.items()]
        client.async_stream_infer(model, inputs, outputs=outputs, request_id="1")
        client.stop_stream()
    results = [answers.get_nowait() for _ in range(answers.qsize())]
    assert results and not any(isinstance(result, Exception) for result in results), results
    return [result for result in results if result.as_numpy("text_output") is not None]


@pytest.fixture(scope="module")
def whole(tiny_server) -> str:
    """Prompt and continuation."""
    body = {"text_input": PROMPT, "max_tokens": MAX_TOKENS}
    return http_client.generate(tiny_server.http_port, body)["text_output"]


@pytest.mark.parametrize("model", ENSEMBLES)
class TestTextOutput:
    """One string a sequence or beam, without a batch dimension."""

    def test_of_a_request(self, tiny_server, whole, model):
        (result,) = stream(tiny_server.grpc_port, model, request())
        output = result.as_numpy("text_output")
        assert output.shape == (1,) and output[0].decode() == whole

    def test_of_a_stream(self, tiny_server, whole, model):
        arrays = request(stream=True, beam_width=1, temperature=1.0, num_return_sequences=1)
        outputs = [result.as_numpy("text_output") for result in stream(tiny_server.grpc_port, model, arrays)]
        assert "".join(output[0].decode("utf-8") for output in outputs) == whole.removeprefix(PROMPT)

    def test_of_sequences(self, tiny_server, whole, model):
        results = stream(tiny_server.grpc_port, model, request(num_return_sequences=3))
        texts = {result.as_numpy("sequence_index")[0][0]: result.as_numpy("text_output")[0] for result in results}
        assert texts == {index: whole.encode() for index in range(3)}

    def test_of_a_batch(self, tiny_server, whole, model):
        arrays = {name: np.concatenate([array] * 2) for name, array in request().items()}
        results = stream(tiny_server.grpc_port, model, arrays)
        texts = {result.as_numpy("batch_index")[0][0]: result.as_numpy("text_output")[0] for result in results}
        assert texts == {index: whole.encode() for index in range(2)}


@pytest.mark.parametrize("model", ENSEMBLES)
def test_the_last_response_of_a_stream_says_all(tiny_server, model):
    flags = {"return_log_probs": True, "return_context_logits": True, "return_generation_logits": True}
    results = stream(tiny_server.grpc_port, model, request(stream=True, **flags))
    (whole,) = stream(tiny_server.grpc_port, model, request(**flags))
    for name in ("cum_log_probs", "output_log_probs", "context_logits"):
        assert np.allclose(results[-1].as_numpy(name), whole.as_numpy(name), rtol=1e-4), name
    logits = [result.as_numpy("generation_logits") for result in results]
    logits = np.concatenate([rows for rows in logits if rows is not None], axis=2)
    assert np.array_equal(logits, whole.as_numpy("generation_logits"))


@pytest.fixture(scope="module")
def models_server(tiny_engine, make_repository):
    """For clients of the three models, which take one answer each over HTTP."""
    from inflight.launcher.server import TritonServer

    engine = tiny_engine("llama", max_batch_size=8, max_num_tokens=256, max_seq_len=128, max_beam_width=4)
    with TritonServer(make_repository(engine, decoupled_mode="false")) as server:
        yield server


@pytest.fixture
def http(models_server):
    with httpclient.InferenceServerClient(f"localhost:{models_server.http_port}") as client:
        yield client


def infer(http, model: str, arrays: dict[str, np.ndarray]) -> httpclient.InferResult:
    return http.infer(model, [tensor(httpclient, *item) for item in arrays.items()], request_id="1")


@pytest.mark.parametrize("model", ENSEMBLES)
def test_beams_are_texts_of_one_answer(http, model):
    output = infer(http, model, request(beam_width=4)).as_numpy("text_output")
    assert output.shape == (4,) and len({text.decode() for text in output}) == 4


class TestThreeModels:
    """A client that calls preprocessing, tensorrt_llm and postprocessing itself, and hands on what they give."""

    FLAGS = {"return_log_probs": True, "return_context_logits": True, "return_generation_logits": True}

    @pytest.fixture
    def preprocessed(self, http):
        query = {
            "QUERY": text(PROMPT),
            "REQUEST_OUTPUT_LEN": np.array([[MAX_TOKENS]], np.int32),
            "BAD_WORDS_DICT": text(""),
            "STOP_WORDS_DICT": text(""),
        }
        return infer(http, "preprocessing", query)

    def generation_inputs(self, preprocessed) -> dict[str, np.ndarray]:
        names = {
            "input_ids": "INPUT_ID",
            "input_lengths": "REQUEST_INPUT_LEN",
            "request_output_len": "REQUEST_OUTPUT_LEN",
            "decoder_input_ids": "DECODER_INPUT_ID",
            "decoder_input_lengths": "REQUEST_DECODER_INPUT_LEN",
            "end_id": "OUT_END_ID",
            "pad_id": "OUT_PAD_ID",
            "stop_words_list": "STOP_WORDS_IDS",
            "bad_words_list": "BAD_WORDS_IDS",
            "embedding_bias": "EMBEDDING_BIAS",
        }
        return {name: preprocessed.as_numpy(output) for name, output in names.items()}

    def test_is_the_ensemble(self, http, preprocessed):
        flags = {name: np.array([[True]]) for name in self.FLAGS}
        generated = infer(http, "tensorrt_llm", {**self.generation_inputs(preprocessed), **flags})
        handed_on = {
            "CUM_LOG_PROBS": generated.as_numpy("cum_log_probs"),
            "OUTPUT_LOG_PROBS": generated.as_numpy("output_log_probs"),
            "CONTEXT_LOGITS": generated.as_numpy("context_logits"),
            "GENERATION_LOGITS": generated.as_numpy("generation_logits"),
        }
        tokens = {
            "TOKENS_BATCH": generated.as_numpy("output_ids"),
            "SEQUENCE_LENGTH": generated.as_numpy("sequence_length"),
        }
        post = infer(http, "postprocessing", {**tokens, **handed_on})
        ensemble = infer(http, "ensemble", {**request(), "bad_words": text(""), "stop_words": text(""), **flags})
        assert post.as_numpy("OUTPUT") == ensemble.as_numpy("text_output")
        for name, array in handed_on.items():
            assert np.array_equal(post.as_numpy(f"OUT_{name}"), array)
            assert np.array_equal(ensemble.as_numpy(name.lower()), array)

    def test_end_id_is_the_models_own(self, preprocessed):
        assert preprocessed.as_numpy("OUT_END_ID").tolist() == [[1]]


def test_seeds_and_least_lengths_have_two_names(http):
    sampling = {"temperature": 3.0, "top_k": 50}
    seed = np.array([[11]], np.uint64)

    def output(**others) -> list[bytes]:
        return infer(http, "ensemble", request(**sampling, **others)).as_numpy("text_output").tolist()

    assert output(seed=seed, min_tokens=3) == output(random_seed=seed, min_length=3)
    assert output(seed=seed) != output(seed=seed + np.uint64(1))


def test_perf_metrics_and_numbers_of_tokens_of_an_ensemble(http):
    flags = {"return_perf_metrics": True, "return_num_input_tokens": True, "return_num_output_tokens": True}
    result = infer(http, "ensemble", request(**flags))
    names = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")
    times = [result.as_numpy(name)[0][0] for name in names]
    assert 0 < times[0] and times == sorted(times)
    for name in ("acceptance_rate", "total_accepted_draft_tokens", "total_draft_tokens"):
        assert result.as_numpy(name).tolist() == [[0]]
    assert result.as_numpy("kv_cache_alloc_total_blocks")[0][0] > 0
    assert result.as_numpy("num_output_tokens").tolist() == [[MAX_TOKENS]]


@pytest.fixture(scope="module")
def old_server(tiny_server_engine, make_repository):
    """A repository as of 0.6: integers without a sign, and postprocessing needs log-probs of every response."""
    from inflight.launcher.server import TritonServer

    repository = make_repository(tiny_server_engine, exclude_input_in_output="true")
    make_old(repository)
    with TritonServer(repository) as server:
        yield server


class TestVersion06:
    def test_a_stream(self, old_server, whole):
        results = stream(old_server.grpc_port, "ensemble", request(integer=np.uint32, stream=True))
        assert b"".join(result.as_numpy("text_output")[0] for result in results).decode() == whole.removeprefix(PROMPT)

    def test_log_probs_come_when_asked_for_and_as_zeros_else(self, old_server):
        for flag in (True, False):
            (result,) = stream(old_server.grpc_port, "ensemble", request(integer=np.uint32, return_log_probs=flag))
            for name in ("cum_log_probs", "output_log_probs"):
                assert result.as_numpy(name).any() == flag

    def test_langchain(self, old_server, whole):
        """langchain-nvidia-trt 0.0.1rc0: integers without a sign, top_p 0, one output, and the last response is said
        by its parameter."""
        arrays = request(
            integer=np.uint32,
            top_k=1,
            top_p=0.0,
            temperature=1.0,
            length_penalty=1.0,
            repetition_penalty=1.0,
            random_seed=np.array([[42]], np.uint64),
            beam_width=1,
            stream=True,
        )
        outputs = [grpcclient.InferRequestedOutput("text_output")]
        results = stream(old_server.grpc_port, "ensemble", arrays, outputs)
        texts = ["".join(token.decode() for token in result.as_numpy("text_output")) for result in results]
        assert "".join(texts) == whole.removeprefix(PROMPT)
        assert all("triton_final_response" in result.get_response(as_json=True)["parameters"] for result in results)

    def test_a_stop_signal_of_langchain(self, old_server):
        """To tensorrt_llm, for a request that has ended already."""
        signal = {
            "input_ids": np.zeros((1, 1), np.int32),
            "input_lengths": np.zeros((1, 1), np.int32),
            "request_output_len": np.zeros((1, 1), np.uint32),
            "stop": np.array([[True]]),
        }
        answers = queue.Queue()
        with grpcclient.InferenceServerClient(f"localhost:{old_server.grpc_port}") as client:
            client.start_stream(lambda result, error: answers.put(error))
            inputs = [tensor(grpcclient, *item) for item in signal.items()]
            client.async_stream_infer("tensorrt_llm", inputs, request_id="7", parameters={"Streaming": True})
            client.stop_stream()
        assert answers.get_nowait() is None


@pytest.mark.parametrize("is_streamed", [False, True])
def test_litellm(tiny_server, whole, is_streamed):
    """What it takes for sampling parameters goes into `parameters`, and its words are lists."""
    words = {"bad_words": [""], "stop_words": [""]}
    body = {"text_input": PROMPT, "parameters": {"max_tokens": MAX_TOKENS, **words}, "stream": is_streamed}
    if is_streamed:
        events = list(http_client.generate_stream(tiny_server.http_port, body))
        assert "".join(event["text_output"] for event in events) == whole.removeprefix(PROMPT)
    else:
        answer = http_client.generate(tiny_server.http_port, body)
        assert answer["text_output"] == whole
