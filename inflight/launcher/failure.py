"""What a tritonserver log says about why the server did not start."""

import re

# Written by tritonserver 2.51's model_lifecycle.cc, model_repository_manager.cc and main.cc.
_MODEL_FAILED = re.compile(r'"failed to load \'(?P<model>[^\']+)\' version \d+: (?P<error>.*)"$', re.MULTILINE)
_POLL_FAILED = re.compile(r'"Poll failed for model directory \'(?P<model>[^\']+)\': (?P<error>.*)"$', re.MULTILINE)
_PROTOBUF_ERROR = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<error>.*)$", re.MULTILINE)
_DEPENDENCY_FAILED = re.compile(r'"Invalid argument: (?P<error>ensemble [^"]*?)( Model \'.*)?"$', re.MULTILINE)
_SERVICE_FAILED = re.compile(r'"failed to start (?P<service>\S+) service: (?P<error>.*?)\s*"$', re.MULTILINE)
_ERROR_LINE = re.compile(r"^(?:error: |E\d{4} [^\]]*\] )(?P<error>.*)$", re.MULTILINE)
_STATUS_PREFIX = re.compile(r"^(?:Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown): ")
_PYTHON_LOCATION = re.compile(r"\n+At:\n.*", re.DOTALL)


def explain_failure(log: str) -> str:
    """The errors of the models that did not load, or of the service that did not start, each on a line of its
    own; the last error of the log where there is no such line."""
    reasons = [f"model {match['model']}: {_clean(match['error'])}" for match in _MODEL_FAILED.finditer(log)]
    syntax_errors = iter(_PROTOBUF_ERROR.findall(log))
    for match in _POLL_FAILED.finditer(log):
        detail = next(syntax_errors, None)
        reasons.append(f"model {match['model']}: {_clean(match['error'])}" + (f" ({detail})" if detail else ""))
    reasons += [f"{match['service']} service: {_clean(match['error'])}" for match in _SERVICE_FAILED.finditer(log)]
    if not reasons:  # an ensemble whose models are missing altogether
        reasons = [_clean(match["error"]) for match in _DEPENDENCY_FAILED.finditer(log)]
    if not reasons:
        reasons = [_clean(error) for error in _ERROR_LINE.findall(log)[-1:]]
    return "\n".join(dict.fromkeys(reasons))


def _clean(error: str) -> str:
    """Triton escapes what it logs, names the status code, and appends where Python code raised."""
    error = error.replace("\\n", "\n").replace('\\"', '"')
    return _STATUS_PREFIX.sub("", _PYTHON_LOCATION.sub("", error)).strip()
