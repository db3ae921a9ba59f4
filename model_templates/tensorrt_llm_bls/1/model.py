"""preprocessing → tensorrt_llm → postprocessing as the ensemble has it, called from Python.

One instance serves many requests at once: each has a thread, which sleeps while it waits for tokens.
"""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import triton_python_backend_utils as pb_utils

from inflight.errors import InflightError
from inflight.repository.parameters import flag_parameter, text_parameter

MAX_REQUESTS = 512  # served at once; more wait their turn
# A call of another model holds one of the python backend's 32 threads until the first response is there. Requests
# that wait for their first token must leave some to those that want their text.
MAX_WAITING_FOR_FIRST_TOKEN = 24
CANCELLATION_PERIOD = 0.1  # seconds between two looks at whether clients have gone

PREPROCESSING_INPUTS = {
    "text_input": "QUERY",
    "decoder_text_input": "DECODER_QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}
PREPROCESSING_OUTPUTS = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "DECODER_INPUT_ID": "decoder_input_ids",
    "REQUEST_DECODER_INPUT_LEN": "decoder_input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
    "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}
GENERATION_INPUTS = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
    **{
        name: name
        for name in (
            "num_return_sequences exclude_input_in_output temperature repetition_penalty min_length presence_penalty "
            "frequency_penalty random_seed return_log_probs return_context_logits return_generation_logits "
            "return_kv_cache_reuse_stats beam_width prompt_embedding_table prompt_vocab_size lora_task_id "
            "lora_weights lora_config"
        ).split()
    },
}
POSTPROCESSING_INPUTS = {
    "output_ids": "TOKENS_BATCH",
    "sequence_length": "SEQUENCE_LENGTH",
    "preceding_ids": "PRECEDING_IDS",
    "sequence_finished": "SEQUENCE_FINISHED",
}
UNSERVED_INPUTS = {
    "num_draft_tokens": "speculative decoding with a draft model",
    "use_draft_logits": "speculative decoding with a draft model",
    "image_input": "image input",
    "image_bytes_input": "image input",
    "image_url_input": "image input",
    "video_bytes_input": "video input",
}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        for name in ("tensorrt_llm_draft_model_name", "multimodal_encoders_name"):
            if value := text_parameter(config, name, default=""):
                raise InflightError(
                    f"model {args['model_name']}: parameter {name} is {value!r}, but this version serves neither draft "
                    "models nor multimodal encoders; leave it empty"
                )
        self._llm = text_parameter(config, "tensorrt_llm_model_name", default="tensorrt_llm")
        self._accumulates = flag_parameter(config, "accumulate_tokens", default=False)
        self._threads = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="bls")
        self._first_tokens = threading.Semaphore(MAX_WAITING_FOR_FIRST_TOKEN)
        self._cancellation = CancellationWatch(self._llm)

    def execute(self, requests):
        for request in requests:
            self._threads.submit(self._serve, request, request.get_response_sender())

    def finalize(self):
        self._cancellation.stop()
        self._threads.shutdown()

    def _serve(self, request, sender):
        """Answers one request; whatever happens, the final flag is sent exactly once."""
        try:
            for response in self._responses(request, sender):
                sender.send(response)
        except CallError as error:
            sender.send(pb_utils.InferenceResponse(error=error.triton_error))
        except InflightError as error:
            sender.send(_error_response(str(error), pb_utils.TritonError.INVALID_ARG))
        except Exception as error:
            sender.send(_error_response(f"tensorrt_llm_bls: {error!r}", pb_utils.TritonError.INTERNAL))
        finally:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _responses(self, request, sender):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        for name, feature in UNSERVED_INPUTS.items():
            if name in inputs and inputs[name].any():
                raise InflightError(f"{name} is set, but this version does not serve {feature}; leave it out")
        wanted = set(request.requested_output_names())
        llm_inputs = self._preprocess(inputs) | _renamed(inputs, GENERATION_INPUTS)
        texts = {}
        for outputs in self._generate(llm_inputs, wanted, sender):
            text = self._postprocess(outputs)
            if self._accumulates:
                sequence = (outputs["batch_index"].item(), outputs["sequence_index"].item())
                text = texts[sequence] = texts.get(sequence, b"") + text
            tensors = {"text_output": text} | {name: value for name, value in outputs.items() if name in wanted}
            yield pb_utils.InferenceResponse(output_tensors=_tensors(tensors))

    def _preprocess(self, inputs):
        tensors = _renamed(inputs, PREPROCESSING_INPUTS)
        (outputs,) = _call("preprocessing", tensors, PREPROCESSING_OUTPUTS)
        return _renamed(outputs, PREPROCESSING_OUTPUTS)

    def _generate(self, inputs, wanted, sender):
        """Yields the output tensors of each response of the generation."""
        names = {*POSTPROCESSING_INPUTS, "batch_index", "sequence_index", *(wanted - {"text_output"})}
        with self._cancellation.watching(sender) as request_id:
            responses = _call(self._llm, inputs, names, request_id, self._first_tokens)
            yield from responses

    def _postprocess(self, outputs):
        (texts,) = _call("postprocessing", _renamed(outputs, POSTPROCESSING_INPUTS), ["OUTPUT"])
        return texts["OUTPUT"]


class CallError(Exception):
    """Another model answered with an error, which is passed on as it is."""

    def __init__(self, triton_error):
        super().__init__(triton_error.message())
        self.triton_error = triton_error


class CancellationWatch:
    """Ends the generation of requests whose client has gone."""

    def __init__(self, llm):
        self._llm = llm
        self._senders = {}  # request id of the generation → sender of the request that it is for
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="bls-cancellation", daemon=True).start()

    @contextmanager
    def watching(self, sender):
        """Gives an id for the generation request; while it runs, the sender's cancellation ends it."""
        request_id = uuid.uuid4().hex
        with self._lock:
            self._senders[request_id] = sender
        try:
            yield request_id
        finally:
            with self._lock:
                self._senders.pop(request_id, None)

    def stop(self):
        self._stopped.set()

    def _run(self):
        while not self._stopped.wait(CANCELLATION_PERIOD):
            with self._lock:
                request_ids = list(self._senders)
            for request_id in request_ids:
                with self._lock:  # a sender that has sent its last response must not be asked any more
                    sender = self._senders.get(request_id)
                    cancelled = sender is not None and sender.is_cancelled()
                if cancelled:
                    self._stop_generation(request_id)

    def _stop_generation(self, request_id):
        one = np.ones((1, 1), np.int32)
        inputs = {"input_ids": one, "input_lengths": one, "request_output_len": one, "stop": one.astype(bool)}
        try:
            for _ in _call(self._llm, inputs, ["sequence_length"], request_id):
                pass
        except CallError as error:
            pb_utils.Logger.log_error(f"tensorrt_llm_bls: cannot cancel a generation: {error}")


def _call(model, inputs, output_names, request_id="", first_response=nullcontext()):
    """Runs another model; yields the output tensors of each of its responses, raises CallError for an error.

    first_response is held until the first response is there."""
    request = pb_utils.InferenceRequest(
        model_name=model,
        request_id=request_id,
        inputs=_tensors(inputs),
        requested_output_names=list(output_names),
    )
    with first_response:
        responses = request.exec(decoupled=True)
    for response in responses:
        if response.has_error():
            raise CallError(response.error())
        outputs = response.output_tensors()
        if outputs:  # the last response may hold nothing but the flag that it is the last
            yield {tensor.name(): tensor.as_numpy() for tensor in outputs}


def _renamed(tensors, names):
    return {names[name]: value for name, value in tensors.items() if name in names}


def _tensors(arrays):
    return [pb_utils.Tensor(name, value) for name, value in arrays.items()]


def _error_response(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
