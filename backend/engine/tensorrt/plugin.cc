#include "engine/tensorrt/plugin.h"

#include <array>
#include <cstring>

#include "common/error.h"
#include "engine/tensorrt/operations/operations.h"

namespace inflight::gpu {
namespace {

using namespace nvinfer1;

constexpr const char* kName = "Inflight";  // of every plugin; its constants begin with the operation's type
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "";
constexpr size_t kMaxInputs = 16;

thread_local std::string last_error;

Shape shape_of(const Dims& dims) {
  Shape shape;
  shape.rank = std::min(dims.nbDims, 4);
  for (int i = 0; i < shape.rank; ++i) shape.sizes[i] = dims.d[i];
  return shape;
}

// [type's length][type][constants]
std::vector<std::byte> to_bytes(const Operation& operation) {
  const std::string_view type = operation.type();
  const auto constants = operation.constants();
  std::vector<std::byte> bytes{static_cast<std::byte>(type.size())};
  const auto* const first = reinterpret_cast<const std::byte*>(type.data());
  bytes.insert(bytes.end(), first, first + type.size());
  bytes.insert(bytes.end(), constants.begin(), constants.end());
  return bytes;
}

// Null where the bytes are not an operation's; the message goes to TensorRT's logger.
std::unique_ptr<Operation> from_bytes(const void* data, size_t size) {
  const std::span bytes(static_cast<const std::byte*>(data), size);
  try {
    const size_t length = size == 0 ? 0 : static_cast<size_t>(bytes[0]);
    if (size == 0 || length + 1 > size) throw_error(ErrorCode::kInvalidArgument, "a plugin's constants are cut off");
    const std::string_view type(reinterpret_cast<const char*>(bytes.data()) + 1, length);
    return read_operation(type, bytes.subspan(1 + length));
  } catch (const std::exception& error) {
    last_error = error.what();
    if (ILogger* logger = getLogger()) logger->log(ILogger::Severity::kERROR, error.what());
    return nullptr;
  }
}

DimsExprs output_dims(const OutputForm& form, const DimsExprs* inputs, IExprBuilder& builder) {
  DimsExprs dims{};
  dims.nbDims = form.columns == 0 ? 1 : 2;
  dims.d[0] = inputs[form.rows_of_input].d[0];
  if (form.columns != 0) dims.d[1] = builder.constant(form.columns);
  return dims;
}

bool supports(const Operation& operation, int32_t position, const PluginTensorDesc& tensor, int32_t num_inputs) {
  const auto types = operation.input_types();
  const ElementType type = position < num_inputs ? types[position] : operation.output().type;
  return tensor.type == to_tensorrt(type) && tensor.format == TensorFormat::kLINEAR;
}

template <class Descriptions>
size_t workspace(const Operation& operation, Descriptions inputs, int32_t count, const auto& dims_of) {
  std::vector<Shape> shapes;
  for (int32_t i = 0; i < count; ++i) shapes.push_back(shape_of(dims_of(inputs[i])));
  return operation.workspace_bytes(shapes);
}

int32_t run(Operation& operation, size_t num_inputs, const PluginTensorDesc* descriptions, const void* const* inputs,
            void* const* outputs, void* workspace, cudaStream_t stream) {
  std::array<Input, kMaxInputs> all;
  for (size_t i = 0; i < num_inputs; ++i) all[i] = {inputs[i], shape_of(descriptions[i].dims)};
  const kernels::Status status = operation.enqueue({all.data(), num_inputs}, outputs[0], workspace, stream);
  if (status.ok()) return 0;
  last_error = status.message();
  return 1;
}

bool load(Operation& operation) {
  const kernels::Status status = operation.load();
  if (!status.ok()) last_error = status.message();
  return status.ok();
}

#if INFLIGHT_PLUGIN_V3

class Plugin : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit Plugin(std::unique_ptr<Operation> operation)
      : operation_(std::move(operation)), num_inputs_(operation_->input_types().size()) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new Plugin(operation_->copy()); }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }
  int32_t getOutputDataTypes(DataType* types, int32_t, const DataType*, int32_t) const noexcept override {
    types[0] = to_tensorrt(operation_->output().type);
    return 0;
  }
  int32_t getOutputShapes(const DimsExprs* inputs, int32_t, const DimsExprs*, int32_t, DimsExprs* outputs, int32_t,
                          IExprBuilder& builder) noexcept override {
    outputs[0] = output_dims(operation_->output(), inputs, builder);
    return 0;
  }
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t num_inputs,
                                 int32_t) noexcept override {
    return supports(*operation_, position, tensors[position].desc, num_inputs);
  }
  int32_t getNbOutputs() const noexcept override { return 1; }
  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t count, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    return workspace(*operation_, inputs, count, [](const DynamicPluginTensorDesc& tensor) { return tensor.max; });
  }

  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*, int32_t) noexcept override {
    return 0;
  }
  int32_t enqueue(const PluginTensorDesc* descriptions, const PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    return run(*operation_, num_inputs_, descriptions, inputs, outputs, workspace, stream);
  }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override {
    auto attached = std::make_unique<Plugin>(operation_->copy());
    return load(*attached->operation_) ? attached.release() : nullptr;
  }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    bytes_ = to_bytes(*operation_);
    field_ = {"constants", bytes_.data(), PluginFieldType::kCHAR, static_cast<int32_t>(bytes_.size())};
    fields_ = {1, &field_};
    return &fields_;
  }

 private:
  std::unique_ptr<Operation> operation_;
  size_t num_inputs_;
  std::vector<std::byte> bytes_;
  PluginField field_{};
  PluginFieldCollection fields_{};
};

class Creator : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields, TensorRTPhase) noexcept override {
    if (fields->nbFields != 1) return nullptr;
    auto operation = from_bytes(fields->fields[0].data, fields->fields[0].length);
    return operation ? new Plugin(std::move(operation)) : nullptr;
  }
  const PluginFieldCollection* getFieldNames() noexcept override {
    static const PluginField field{"constants", nullptr, PluginFieldType::kCHAR, 1};
    static const PluginFieldCollection fields{1, &field};
    return &fields;
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
};

ILayer* add_plugin(INetworkDefinition& network, std::span<ITensor* const> inputs, const Operation& operation) {
  Plugin plugin(operation.copy());
  return network.addPluginV3(inputs.data(), static_cast<int32_t>(inputs.size()), nullptr, 0, plugin);
}

#else

class Plugin : public IPluginV2DynamicExt {
 public:
  explicit Plugin(std::unique_ptr<Operation> operation)
      : operation_(std::move(operation)), num_inputs_(operation_->input_types().size()) {}

  IPluginV2DynamicExt* clone() const noexcept override { return new Plugin(operation_->copy()); }
  const char* getPluginType() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  void setPluginNamespace(const char*) noexcept override {}
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  int32_t getNbOutputs() const noexcept override { return 1; }

  DimsExprs getOutputDimensions(int32_t, const DimsExprs* inputs, int32_t, IExprBuilder& builder) noexcept override {
    return output_dims(operation_->output(), inputs, builder);
  }
  DataType getOutputDataType(int32_t, const DataType*, int32_t) const noexcept override {
    return to_tensorrt(operation_->output().type);
  }
  bool supportsFormatCombination(int32_t position, const PluginTensorDesc* tensors, int32_t num_inputs,
                                 int32_t) noexcept override {
    return supports(*operation_, position, tensors[position], num_inputs);
  }
  void configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                       int32_t) noexcept override {}
  size_t getWorkspaceSize(const PluginTensorDesc* inputs, int32_t count, const PluginTensorDesc*,
                          int32_t) const noexcept override {
    return workspace(*operation_, inputs, count, [](const PluginTensorDesc& tensor) { return tensor.dims; });
  }

  // A context's plugin is a copy of the engine's, which alone is initialized.
  int32_t initialize() noexcept override { return 0; }
  void terminate() noexcept override {}
  void attachToContext(cudnnContext*, cublasContext*, IGpuAllocator*) noexcept override {
    is_loaded_ = load(*operation_);
  }
  int32_t enqueue(const PluginTensorDesc* descriptions, const PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    if (!is_loaded_) return 1;
    return run(*operation_, num_inputs_, descriptions, inputs, outputs, workspace, stream);
  }
  size_t getSerializationSize() const noexcept override { return to_bytes(*operation_).size(); }
  void serialize(void* to) const noexcept override {
    const auto bytes = to_bytes(*operation_);
    std::memcpy(to, bytes.data(), bytes.size());
  }
  void destroy() noexcept override { delete this; }

 private:
  std::unique_ptr<Operation> operation_;
  size_t num_inputs_;
  bool is_loaded_ = false;
};

class Creator : public IPluginCreator {
 public:
  IPluginV2* deserializePlugin(const char*, const void* data, size_t size) noexcept override {
    auto operation = from_bytes(data, size);
    return operation ? new Plugin(std::move(operation)) : nullptr;
  }
  IPluginV2* createPlugin(const char*, const PluginFieldCollection*) noexcept override { return nullptr; }
  const PluginFieldCollection* getFieldNames() noexcept override {
    static const PluginFieldCollection none{0, nullptr};
    return &none;
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  void setPluginNamespace(const char*) noexcept override {}
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
};

ILayer* add_plugin(INetworkDefinition& network, std::span<ITensor* const> inputs, const Operation& operation) {
  Plugin plugin(operation.copy());
  return network.addPluginV2(inputs.data(), static_cast<int32_t>(inputs.size()), plugin);
}

#endif

}  // namespace

void register_plugins() {
  static Creator creator;
  static const bool registered = getPluginRegistry()->registerCreator(creator, kNamespace);
  if (!registered) throw_error(ErrorCode::kInternal, "TensorRT does not register the plugin ", kName);
}

ITensor* add_operation(INetworkDefinition& network, const Operation& operation, std::span<ITensor* const> inputs,
                       const char* name) {
  const size_t expected = operation.input_types().size();
  if (inputs.size() != expected || expected > kMaxInputs) {
    throw_error(ErrorCode::kInternal, name, ": ", operation.type(), " takes ", expected, " inputs, got ",
                inputs.size());
  }
  ILayer* const layer = add_plugin(network, inputs, operation);
  if (layer == nullptr) throw_error(ErrorCode::kInternal, name, ": TensorRT does not take this ", operation.type());
  layer->setName(name);
  return layer->getOutput(0);
}

const std::string& last_plugin_error() { return last_error; }

}  // namespace inflight::gpu
