#include "python/errors.h"

#include "python/bindings.h"

namespace inflight::python {
namespace {

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kInternal: return "internal";
    case ErrorCode::kEngineLost: return "engine_lost";
  }
  return "internal";
}

nanobind::object error_type() { return nanobind::module_::import_("inflight.errors").attr("InflightError"); }

void translate(const std::exception_ptr& exception, void*) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    PyErr_SetObject(error_type().ptr(), to_python(error).ptr());
  }
}

}  // namespace

nanobind::object to_python(const Error& error) { return error_type()(error.what(), code_name(error.code())); }

void bind_errors(nanobind::module_&) { nanobind::register_exception_translator(translate); }

}  // namespace inflight::python
