#pragma once

// TensorRT 8.6, 10 and 11: what each offers is decided here.

#include <NvInfer.h>

#include <cstdint>
#include <memory>

#include "engine/tensorrt/operations/operation.h"

namespace inflight::gpu {

#if NV_TENSORRT_MAJOR >= 10
#define INFLIGHT_PLUGIN_V3 1  // IPluginV2DynamicExt is gone from 11 on
using DimensionSize = int64_t;
#else
#define INFLIGHT_PLUGIN_V3 0
using DimensionSize = int32_t;
#endif

// Where TensorRT has no bfloat16, it travels between plugins as half: nobody else looks into it.
constexpr nvinfer1::DataType to_tensorrt(ElementType type) {
  switch (type) {
#if NV_TENSORRT_MAJOR >= 10
    case ElementType::kBFloat16: return nvinfer1::DataType::kBF16;
#else
    case ElementType::kBFloat16: return nvinfer1::DataType::kHALF;
#endif
    case ElementType::kFloat16: return nvinfer1::DataType::kHALF;
    case ElementType::kFloat8E4M3: return nvinfer1::DataType::kINT8;  // opaque, too: a network with kFP8 is quantized
    case ElementType::kFloat32: return nvinfer1::DataType::kFLOAT;
    case ElementType::kInt32: return nvinfer1::DataType::kINT32;
    case ElementType::kInt8: return nvinfer1::DataType::kINT8;
  }
  return nvinfer1::DataType::kHALF;
}

// A network whose tensors have the types that it says.
inline std::unique_ptr<nvinfer1::INetworkDefinition> create_network(nvinfer1::IBuilder& builder) {
#if NV_TENSORRT_MAJOR >= 10
  const auto flag = nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED;
#else
  const auto flag = nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH;
#endif
  return std::unique_ptr<nvinfer1::INetworkDefinition>(builder.createNetworkV2(1U << static_cast<uint32_t>(flag)));
}

// What an output of the network has; without types of its own, TensorRT takes it for float.
inline void set_output_type([[maybe_unused]] nvinfer1::ITensor& tensor, [[maybe_unused]] ElementType type) {
#if NV_TENSORRT_MAJOR < 10
  tensor.setType(to_tensorrt(type));
#endif
}

// Plugins alone: TensorRT needs no tactics of its own.
inline std::unique_ptr<nvinfer1::IBuilderConfig> create_builder_config(nvinfer1::IBuilder& builder) {
  std::unique_ptr<nvinfer1::IBuilderConfig> config(builder.createBuilderConfig());
  if (config == nullptr) return nullptr;
#if NV_TENSORRT_MAJOR < 10
  config->setFlag(nvinfer1::BuilderFlag::kFP16);
#endif
  config->setTacticSources(0);
  return config;
}

}  // namespace inflight::gpu
