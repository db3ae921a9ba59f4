#include "fake_triton.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "check.h"
#include "fake_triton_objects.h"

using namespace inflight::test;

// The entry points of backend.cc.
extern "C" {
TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance*);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance*, TRITONBACKEND_Request**, uint32_t);
}

namespace {

std::mutex failing_mutex;
std::string failing_function;

}  // namespace

struct TRITONSERVER_Error : Counted {
  TRITONSERVER_Error_Code code;
  std::string message;
};

struct TRITONSERVER_Message : Counted {
  std::string json;
};

struct TRITONBACKEND_Input {
  FakeInput content;
};

struct TRITONBACKEND_Output {
  TRITONSERVER_DataType datatype;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;
};

struct TRITONBACKEND_Request {
  FakeRequest content;
  std::vector<TRITONBACKEND_Input> inputs;
  bool is_released = false;
};

struct TRITONBACKEND_ResponseFactory : Counted {
  std::shared_ptr<FakeClient> client;
};

struct TRITONBACKEND_Response : Counted {
  std::shared_ptr<FakeClient> client;
  std::map<std::string, TRITONBACKEND_Output> outputs;
};

struct TRITONBACKEND_ModelInstanceResponseStatistics : Counted {
  TRITONBACKEND_ResponseFactory* factory = nullptr;
};

struct TRITONBACKEND_Model {
  std::string name;
  std::string directory;
  std::string config;
  void* state = nullptr;
};

struct TRITONBACKEND_ModelInstance {
  TRITONBACKEND_Model* model = nullptr;
  void* state = nullptr;
  std::atomic<uint64_t> succeeded = 0, failed = 0;
};

namespace {

void expect_success(TRITONSERVER_Error* error) {
  if (error == nullptr) return;
  fail(__FILE__, __LINE__, error->message);
}

}  // namespace

namespace inflight::test {

TRITONSERVER_Error* make_error(TRITONSERVER_Error_Code code, const std::string& message) {
  auto* error = new TRITONSERVER_Error;
  error->code = code;
  error->message = message;
  return error;
}

// Null, or what the test wants `function` to fail with.
TRITONSERVER_Error* planned_failure(const char* function) {
  std::lock_guard lock(failing_mutex);
  if (failing_function != function) return nullptr;
  failing_function.clear();
  return make_error(TRITONSERVER_ERROR_INTERNAL, "planned");
}

FakeInput ints(const std::string& name, std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  return {name, TRITONSERVER_TYPE_INT32, std::move(shape), {bytes, bytes + values.size() * sizeof(int32_t)}};
}

FakeInput flag(const std::string& name, bool value) {
  return {name, TRITONSERVER_TYPE_BOOL, {1, 1}, {std::byte{value}}};
}

FakeInput generation(uint64_t id) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&id);
  return {"generation_id", TRITONSERVER_TYPE_UINT64, {1, 1}, {bytes, bytes + sizeof id}};
}

uint64_t FakeResponse::generation_id() const {
  uint64_t id = 0;
  if (const auto found = outputs.find("generation_id"); found != outputs.end()) {
    CHECK_EQ(found->second.size(), sizeof id);
    std::memcpy(&id, found->second.data(), sizeof id);
  }
  return id;
}

void FakeClient::take(const FakeResponse& response) {
  {
    std::lock_guard lock(mutex_);
    CHECK(!last_.is_final);
    last_ = response;
  }
  if (on_response_) on_response_(response);
  if (response.is_final) {
    has_ended_ = true;
    has_ended_.notify_all();
  }
}

FakeResponse FakeClient::wait_for_end() const {
  has_ended_.wait(false);
  std::lock_guard lock(mutex_);
  return last_;
}

FakeModel::FakeModel(const std::string& name, const std::filesystem::path& engine, bool decoupled)
    : model_(std::make_unique<TRITONBACKEND_Model>()), instance_(std::make_unique<TRITONBACKEND_ModelInstance>()) {
  const nlohmann::json config = {{"max_batch_size", 4},
                                 {"parameters", {{"gpt_model_path", {{"string_value", engine.string()}}}}},
                                 {"model_transaction_policy", {{"decoupled", decoupled}}}};
  model_->name = name;
  model_->directory = "/repository/" + name;
  model_->config = config.dump();
  instance_->model = model_.get();
  expect_success(TRITONBACKEND_ModelInitialize(model_.get()));
  expect_success(TRITONBACKEND_ModelInstanceInitialize(instance_.get()));
}

FakeModel::~FakeModel() {
  expect_success(TRITONBACKEND_ModelInstanceFinalize(instance_.get()));
  expect_success(TRITONBACKEND_ModelFinalize(model_.get()));
}

void FakeModel::execute(FakeRequest content) {
  std::lock_guard lock(executing_);
  with_triton_request(std::move(content), [this](TRITONBACKEND_Request* request) {
    expect_success(TRITONBACKEND_ModelInstanceExecute(instance_.get(), &request, 1));
    CHECK(request->is_released);
  });
}

uint64_t FakeModel::succeeded() const { return instance_->succeeded; }
uint64_t FakeModel::failed() const { return instance_->failed; }

void fail_next(const std::string& function) {
  std::lock_guard lock(failing_mutex);
  failing_function = function;
}

int64_t live_objects() { return live; }

void with_triton_request(FakeRequest content, const std::function<void(TRITONBACKEND_Request*)>& body) {
  TRITONBACKEND_Request request;
  for (const FakeInput& input : content.inputs) request.inputs.push_back({input});
  request.content = std::move(content);
  body(&request);
}

}  // namespace inflight::test

namespace {

TRITONSERVER_Error* new_response(TRITONBACKEND_Response** response, std::shared_ptr<FakeClient> client) {
  *response = new TRITONBACKEND_Response;
  (*response)->client = std::move(client);
  return nullptr;
}

}  // namespace

extern "C" {

const char* TRITONSERVER_DataTypeString(TRITONSERVER_DataType datatype) {
  static const char* const kNames[] = {"<invalid>", "BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
                                       "INT32",     "INT64", "FP16",  "FP32",   "FP64",   "BYTES",  "BF16"};
  return datatype >= 0 && static_cast<size_t>(datatype) < std::size(kNames) ? kNames[datatype] : kNames[0];
}

TRITONSERVER_Error* TRITONSERVER_LogMessage(TRITONSERVER_LogLevel, const char*, int, const char*) { return nullptr; }
bool TRITONSERVER_LogIsEnabled(TRITONSERVER_LogLevel) { return true; }

TRITONSERVER_Error* TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char* message) {
  return make_error(code, message);
}
void TRITONSERVER_ErrorDelete(TRITONSERVER_Error* error) { delete error; }
TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error* error) { return error->code; }
const char* TRITONSERVER_ErrorMessage(TRITONSERVER_Error* error) { return error->message.c_str(); }

TRITONSERVER_Error* TRITONSERVER_MessageDelete(TRITONSERVER_Message* message) {
  delete message;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message* message, const char** base,
                                                        size_t* size) {
  *base = message->json.data();
  *size = message->json.size();
  return nullptr;
}

TRITONSERVER_Parameter* TRITONSERVER_ParameterNew(const char* name, TRITONSERVER_ParameterType, const void* value) {
  auto* parameter = new TRITONSERVER_Parameter;
  parameter->name = name;
  parameter->value = static_cast<const char*>(value);
  return parameter;
}
void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter* parameter) { delete parameter; }

TRITONSERVER_Error* TRITONBACKEND_ApiVersion(uint32_t* major, uint32_t* minor) {
  *major = TRITONBACKEND_API_VERSION_MAJOR;
  *minor = TRITONBACKEND_API_VERSION_MINOR;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_InputProperties(TRITONBACKEND_Input* input, const char** name,
                                                  TRITONSERVER_DataType* datatype, const int64_t** shape,
                                                  uint32_t* rank, uint64_t* size, uint32_t* num_buffers) {
  const FakeInput& content = input->content;
  *name = content.name.c_str();
  *datatype = content.datatype;
  *shape = content.shape.data();
  *rank = static_cast<uint32_t>(content.shape.size());
  *size = content.data.size();
  *num_buffers = static_cast<uint32_t>(content.num_buffers);
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_InputBuffer(TRITONBACKEND_Input* input, uint32_t index, const void** buffer,
                                              uint64_t* size, TRITONSERVER_MemoryType* memory, int64_t* memory_id) {
  const std::vector<std::byte>& data = input->content.data;
  const size_t count = input->content.num_buffers, part = data.size() / count;
  *buffer = data.data() + index * part;
  *size = index + 1 == count ? data.size() - index * part : part;
  *memory = TRITONSERVER_MEMORY_CPU;
  *memory_id = 0;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output* output, void** buffer, uint64_t size,
                                               TRITONSERVER_MemoryType* memory, int64_t* memory_id) {
  if (TRITONSERVER_Error* error = planned_failure("TRITONBACKEND_OutputBuffer")) return error;
  output->data.resize(size);
  *buffer = output->data.data();
  *memory = TRITONSERVER_MEMORY_CPU;
  *memory_id = 0;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_RequestId(TRITONBACKEND_Request* request, const char** id) {
  *id = request->content.id.c_str();
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request* request, uint32_t* count) {
  *count = static_cast<uint32_t>(request->inputs.size());
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request* request, uint32_t index,
                                                      TRITONBACKEND_Input** input) {
  *input = &request->inputs.at(index);
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request* request, uint32_t* count) {
  *count = static_cast<uint32_t>(request->content.outputs.size());
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request* request, uint32_t index, const char** name) {
  *name = request->content.outputs.at(index).c_str();
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request*, uint32_t* count) {
  *count = 0;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestParameter(TRITONBACKEND_Request*, uint32_t, const char**,
                                                   TRITONSERVER_ParameterType*, const void**) {
  return make_error(TRITONSERVER_ERROR_INTERNAL, "there are no parameters");
}
TRITONSERVER_Error* TRITONBACKEND_InferenceRequestTimeoutMicroseconds(TRITONBACKEND_Request*, uint64_t* timeout) {
  *timeout = 0;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_RequestRelease(TRITONBACKEND_Request* request, uint32_t) {
  CHECK(!request->is_released);
  request->is_released = true;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory** factory,
                                                     TRITONBACKEND_Request* request) {
  if (TRITONSERVER_Error* error = planned_failure("TRITONBACKEND_ResponseFactoryNew")) return error;
  *factory = new TRITONBACKEND_ResponseFactory;
  (*factory)->client = request->content.client;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory* factory) {
  delete factory;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory* factory, bool* cancelled) {
  *cancelled = factory->client->is_cancelled();
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory* factory, uint32_t flags) {
  FakeResponse end;
  end.is_final = (flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL) != 0;
  factory->client->take(end);
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseNew(TRITONBACKEND_Response** response, TRITONBACKEND_Request* request) {
  return new_response(response, request->content.client);
}
TRITONSERVER_Error* TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response** response,
                                                         TRITONBACKEND_ResponseFactory* factory) {
  if (TRITONSERVER_Error* error = planned_failure("TRITONBACKEND_ResponseNewFromFactory")) return error;
  return new_response(response, factory->client);
}
TRITONSERVER_Error* TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response* response) {
  delete response;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response* response, TRITONBACKEND_Output** output,
                                                 const char* name, TRITONSERVER_DataType datatype, const int64_t* shape,
                                                 uint32_t rank) {
  const auto [added, is_new] = response->outputs.try_emplace(name);
  CHECK(is_new);
  added->second.datatype = datatype;
  added->second.shape.assign(shape, shape + rank);
  *output = &added->second;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ResponseSend(TRITONBACKEND_Response* response, uint32_t flags,
                                               TRITONSERVER_Error* error) {
  FakeResponse sent;
  for (auto& [name, output] : response->outputs) sent.outputs.emplace(name, std::move(output.data));
  if (error != nullptr) sent.error = error->message;
  sent.is_final = (flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL) != 0;
  const auto client = response->client;
  delete response;
  client->take(sent);
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelName(TRITONBACKEND_Model* model, const char** name) {
  *name = model->name.c_str();
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelServer(TRITONBACKEND_Model*, TRITONSERVER_Server** server) {
  *server = nullptr;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_ServerStop(TRITONSERVER_Server*) { return nullptr; }
TRITONSERVER_Error* TRITONBACKEND_ModelVersion(TRITONBACKEND_Model*, uint64_t* version) {
  *version = 1;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelRepository(TRITONBACKEND_Model* model, TRITONBACKEND_ArtifactType* type,
                                                  const char** location) {
  *type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
  *location = model->directory.c_str();
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelConfig(TRITONBACKEND_Model* model, uint32_t, TRITONSERVER_Message** config) {
  *config = new TRITONSERVER_Message;
  (*config)->json = model->config;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelState(TRITONBACKEND_Model* model, void** state) {
  *state = model->state;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelSetState(TRITONBACKEND_Model* model, void* state) {
  model->state = state;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance* instance,
                                                     TRITONBACKEND_Model** model) {
  *model = instance->model;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance* instance, void** state) {
  *state = instance->state;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance* instance, void* state) {
  instance->state = state;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance* instance,
                                                                TRITONBACKEND_Request* request, bool success, uint64_t,
                                                                uint64_t, uint64_t, uint64_t) {
  CHECK(!request->is_released);
  ++(success ? instance->succeeded : instance->failed);
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportBatchStatistics(TRITONBACKEND_ModelInstance*, uint64_t, uint64_t,
                                                                     uint64_t, uint64_t, uint64_t) {
  return nullptr;
}

using Statistics = TRITONBACKEND_ModelInstanceResponseStatistics;

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsNew(Statistics** statistics) {
  if (auto* error = planned_failure("TRITONBACKEND_ModelInstanceResponseStatisticsNew")) return error;
  *statistics = new Statistics;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsDelete(Statistics* statistics) {
  delete statistics;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(Statistics*,
                                                                                  TRITONBACKEND_ModelInstance*) {
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(
    Statistics* statistics, TRITONBACKEND_ResponseFactory* factory) {
  statistics->factory = factory;
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(Statistics*, uint64_t) {
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(Statistics*, uint64_t) {
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(Statistics*, uint64_t) {
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceResponseStatisticsSetError(Statistics*, TRITONSERVER_Error*) {
  return nullptr;
}
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceReportResponseStatistics(Statistics* statistics) {
  CHECK(statistics->factory->client != nullptr);  // the factory is still there
  return nullptr;
}

}  // extern "C"
