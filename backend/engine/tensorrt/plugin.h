#pragma once

// Operations behind TensorRT's plugin interface, whichever its version has.

#include <span>

#include "engine/tensorrt/tensorrt_version.h"

namespace inflight::gpu {

// Registers, once for the process, what reads the plugins of a plan.
void register_plugins();

// Adds an operation to a network. Throws Error where TensorRT does not take it.
nvinfer1::ITensor* add_operation(nvinfer1::INetworkDefinition& network, const Operation& operation,
                                 std::span<nvinfer1::ITensor* const> inputs, const char* name);

// The message of the last enqueue() that failed in this thread, which TensorRT does not hand on; empty: none did.
const std::string& last_plugin_error();

}  // namespace inflight::gpu
