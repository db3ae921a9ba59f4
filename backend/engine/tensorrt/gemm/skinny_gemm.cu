// A block takes 16 rows of the weights at a time. Its streaming warps share the depth; each has its part brought
// through a ring in shared memory by the copy engine, and multiplies it with x, all of which the block holds. Further
// warps add the parts up and store, while the others stream on. Within 32 values of the depth, lanes read 8 neighbours
// of weights and x alike: the order in which a sum is taken is free, and so x and the weights stay as everybody else
// has them.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>

#include "engine/tensorrt/gemm/skinny_gemm.h"

namespace inflight::gpu {
namespace {

using kernels::Status;

constexpr int kTileRows = 16;             // of the weights
constexpr int kBoxRows = 8;               // half of a tile: rows that lie together
constexpr int kPanel = 64;                // values of the depth: the 128 bytes within which the copy engine swizzles
constexpr int kPanels = 2;                // of a chunk
constexpr int kChunk = kPanels * kPanel;  // values of the depth of a tile, that one copy brings
constexpr int kStages = 2;                // chunks in flight for each warp
constexpr int kPanelBytes = kTileRows * kPanel * 2;
constexpr int kStageBytes = kPanels * kPanelBytes;
constexpr int kMaxWarps = 16;   // that stream
constexpr int kParts = 2;        // of a tile's sums, a storing warp each
constexpr int kBuffers = 4;      // of sums: with several splits, storing a tile takes as long as streaming several
constexpr int kStoringWarps = kBuffers * kParts;
constexpr int kMaxSplits = 64;
constexpr int kPairs = kMaxSkinnyRows * kBoxRows;  // of sums of a tile: one of each of its boxes
constexpr int kInputPadding = 64;  // bytes after a row of x, so that two rows stand in different banks
constexpr int kMaxInputBytes = 65 << 10;  // with the rings and the sums of 16 warps, what a block may have

// How a product is divided.
struct Division {
  int rows;    // of x
  int tiles;   // of the weights' rows
  int splits;  // of the depth, among blocks
  int chunks_per_split;
  int chunks_per_warp;
  int warps;

  __host__ __device__ int input_stride() const {
    return warps * chunks_per_warp * kChunk * 2 + kInputPadding;
  }  // bytes
  size_t shared_bytes() const {
    return 1024 + size_t{1} * warps * kStages * kStageBytes + rows * input_stride() +
           size_t{kBuffers} * warps * 2 * kPairs * sizeof(float);
  }
};

Division divide(int rows, int columns, int depth) {
  Division d;
  d.rows = rows;
  d.tiles = columns / kTileRows;
  const int chunks = (depth + kChunk - 1) / kChunk;
  const int most = (kMaxInputBytes / rows - kInputPadding) / (kChunk * 2);  // chunks of x that a block holds
  const int fewest = (chunks + most - 1) / most;
  int splits = fewest;
  while (chunks % splits != 0 && splits < 2 * fewest) ++splits;
  d.chunks_per_split = (chunks + splits - 1) / splits;
  d.splits = (chunks + d.chunks_per_split - 1) / d.chunks_per_split;
  d.chunks_per_warp = std::max(kStages, (d.chunks_per_split + kMaxWarps - 1) / kMaxWarps);
  d.warps = (d.chunks_per_split + d.chunks_per_warp - 1) / d.chunks_per_warp;
  return d;
}

struct Work {
  void* output;
  const void* input;
  const void* residual;
  float2* partials;  // [tiles, splits, kPairs]
  int* arrived;      // [tiles, kParts]
  int rows, columns, depth;
  Division division;
};

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void init_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)));
}

__device__ __forceinline__ void expect_bytes(uint64_t* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void wait_for(uint64_t* barrier, unsigned parity) {
  unsigned done = 0;
  while (!done) {
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
  }
}

// [panels, 2, 8, 64] values of the weights, from row `row` and panel `panel` on.
__device__ __forceinline__ void copy_chunk(void* to, const CUtensorMap* map, int row, int panel, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(shared_address(to)),
      "l"(map), "r"(0), "r"(row), "r"(0), "r"(panel), "r"(shared_address(barrier))
      : "memory");
}

__device__ __forceinline__ void copy_bytes(void* to, const void* from, unsigned bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

template <class T>
__device__ __forceinline__ void multiply(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                         unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

template <class T, GemmEpilogue kEpilogue>
__device__ __forceinline__ void store(const Work& work, int tile, int row, int box_row, float2 v) {
  if (row >= work.rows) return;
  T* output = static_cast<T*>(work.output);
  if constexpr (kEpilogue == GemmEpilogue::kSwiGlu) {
    output[static_cast<size_t>(row) * (work.columns / 2) + tile * kBoxRows + box_row] =
        T(v.x / (1.0f + __expf(-v.x)) * v.y);
  } else {
    const size_t at = static_cast<size_t>(row) * work.columns + tile * kTileRows + box_row;
    if constexpr (kEpilogue == GemmEpilogue::kAddResidual) {
      const T* residual = static_cast<const T*>(work.residual);
      v.x += static_cast<float>(residual[at]);
      v.y += static_cast<float>(residual[at + kBoxRows]);
    }
    output[at] = T(v.x);
    output[at + kBoxRows] = T(v.y);
  }
}

// Of the sums of tiles: buffers, which go back and forth between the warps that stream and those that store.
enum Barrier { kFull = 1, kEmpty = kFull + kBuffers };

__device__ __forceinline__ int waiting_threads(const Division& division) { return (division.warps + kParts) * 32; }

__device__ __forceinline__ void arrive(int barrier, const Division& division) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(barrier), "r"(waiting_threads(division)) : "memory");
}

__device__ __forceinline__ void synchronize(int barrier, const Division& division) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(barrier), "r"(waiting_threads(division)) : "memory");
}

// Adds up what the streaming warps have of each tile, and with several splits what their blocks have: the last block to
// arrive does, always in one order.
template <class T, GemmEpilogue kEpilogue>
__device__ void add_up_and_store(const Work& work, const float* sums, int storing_warp, int lane, int tile, int split,
                                 int blocks) {
  const Division& division = work.division;
  const int part = storing_warp % kParts, buffer = storing_warp / kParts;
  const int pair = part * 32 + lane, row = pair / kBoxRows, in_box = pair % kBoxRows;
  const int source = (in_box % 4 * 2 + in_box / 4) * 16 + row / 2 * 4 + row % 2;  // of the multiplication's fragment
  asm volatile("griddepcontrol.wait;" ::: "memory");
  for (tile += buffer * blocks; tile < division.tiles; tile += kBuffers * blocks) {
    synchronize(kFull + buffer, division);
    float2 v = {0, 0};
    for (int warp = 0; warp < division.warps; ++warp) {
      const float* of_warp = sums + (buffer * division.warps + warp) * 2 * kPairs + source;
      v.x += of_warp[0];
      v.y += of_warp[2];
    }
    if (tile + kBuffers * blocks < division.tiles) arrive(kEmpty + buffer, division);
    if (division.splits > 1) {
      float2* const all = work.partials + static_cast<size_t>(tile) * division.splits * kPairs + pair;
      __stcg(all + split * kPairs, v);
      __threadfence();
      __syncwarp();
      int* const counter = work.arrived + tile * kParts + part;
      int order = 0;
      if (lane == 0) order = atomicAdd(counter, 1);
      if (__shfl_sync(~0u, order, 0) != division.splits - 1) continue;
      if (lane == 0) *counter = 0;
      __threadfence();
      v = {0, 0};
      for (int s = 0; s < division.splits; ++s) {
        const float2 of_split = __ldcg(all + s * kPairs);
        v.x += of_split.x;
        v.y += of_split.y;
      }
    }
    store<T, kEpilogue>(work, tile, row, in_box, v);
  }
}

template <class T, GemmEpilogue kEpilogue>
__global__ void __launch_bounds__((kMaxWarps + kStoringWarps) * 32, 1)
    skinny_gemm(const __grid_constant__ CUtensorMap weight, const Work work) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t full[kMaxWarps][kStages], input_ready;
  const Division& division = work.division;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = division.warps;
  const int split = blockIdx.x % division.splits, blocks = gridDim.x / division.splits;
  const int per_warp = division.chunks_per_warp, input_stride = division.input_stride();
  const bool streams = warp < warps;
  uint8_t* const rings = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
  uint8_t* const ring = rings + warp * kStages * kStageBytes;
  uint8_t* const input = rings + warps * kStages * kStageBytes;
  float* const sums = reinterpret_cast<float*>(input + work.rows * input_stride);  // [kBuffers, warps, 2 kPairs]
  const int first_k = split * division.chunks_per_split * kChunk;
  int tile = blockIdx.x / division.splits;

  const auto request = [&](int of_tile, int chunk, int slot) {
    expect_bytes(&full[warp][slot], kStageBytes);
    copy_chunk(ring + slot * kStageBytes, &weight,
               of_tile * (kEpilogue == GemmEpilogue::kSwiGlu ? kBoxRows : kTileRows),
               (split * division.chunks_per_split + warp * per_warp + chunk) * kPanels, &full[warp][slot]);
  };
  if (lane == 0 && streams) {
    for (int s = 0; s < kStages; ++s) init_barrier(&full[warp][s]);
    if (warp == 0) init_barrier(&input_ready);
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;");
    for (int s = 0; s < kStages; ++s) request(tile, s, s);
  }
  // Chunks past the split are another split's, or outside the weights: x is zero there.
  const int depth = min(work.depth - first_k, division.chunks_per_split * kChunk);
  for (int row = 0; row < work.rows; ++row) {
    for (int k = depth + threadIdx.x; k < warps * per_warp * kChunk; k += blockDim.x) {
      reinterpret_cast<uint16_t*>(input + row * input_stride)[k] = 0;
    }
  }
  __syncthreads();
  if (!streams) {
    add_up_and_store<T, kEpilogue>(work, sums, warp - warps, lane, tile, split, blocks);
    return;
  }
  if (warp == 0) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (lane == 0) expect_bytes(&input_ready, work.rows * depth * 2);
    __syncwarp();
    if (lane < work.rows) {
      copy_bytes(input + lane * input_stride,
                 static_cast<const T*>(work.input) + static_cast<size_t>(lane) * work.depth + first_k, depth * 2,
                 &input_ready);
    }
  }
  wait_for(&input_ready, 0);

  // What a lane reads of the weights: row `box_row` of a box and 16 bytes of it, which the copy engine has swizzled.
  const int group = lane / 4, box_row = group / 2 + group % 2 * 4;
  const uint8_t* const weight_row = ring + box_row * kPanel * 2;
  const int swizzled[2] = {((lane % 4) ^ box_row) * 16, ((lane % 4 + 4) ^ box_row) * 16};
  // Of the rows that there are not, whose sums nobody stores, it reads the first.
  const uint8_t* const input_row =
      input + (group < work.rows ? group : 0) * input_stride + warp * per_warp * kChunk * 2 + lane % 4 * 16;

  for (int i = 0, count = 0; tile < division.tiles; ++i, tile += blocks) {
    float sum[4] = {};
    for (int chunk = 0; chunk < per_warp; ++chunk, ++count) {
      const int slot = count % kStages;
      wait_for(&full[warp][slot], count / kStages & 1);
#pragma unroll
      for (int half = 0; half < 2 * kPanels; ++half) {
        const uint8_t* const at = weight_row + slot * kStageBytes + half / 2 * kPanelBytes + swizzled[half % 2];
        const uint4 low = *reinterpret_cast<const uint4*>(at);
        const uint4 high = *reinterpret_cast<const uint4*>(at + kPanelBytes / 2);
        const uint4 x = *reinterpret_cast<const uint4*>(input_row + chunk * kChunk * 2 + half * 64);
        multiply<T>(sum, low.x, high.x, low.y, high.y, x.x, x.y);
        multiply<T>(sum, low.z, high.z, low.w, high.w, x.z, x.w);
      }
      __syncwarp();
      if (lane == 0) {
        if (chunk + kStages < per_warp) {
          request(tile, chunk + kStages, slot);
        } else if (tile + blocks < division.tiles) {
          request(tile + blocks, chunk + kStages - per_warp, slot);
        }
      }
    }
    if (tile + blocks >= division.tiles) asm volatile("griddepcontrol.launch_dependents;");
    const int buffer = i % kBuffers;
    if (i >= kBuffers) synchronize(kEmpty + buffer, division);
    *reinterpret_cast<float4*>(sums + (buffer * warps + warp) * 2 * kPairs + lane * 4) =
        *reinterpret_cast<float4*>(sum);
    arrive(kFull + buffer, division);
  }
}

Status encode(CUtensorMap& map, const SkinnyGemm& gemm) {
  static const auto encode_tiled = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  if (encode_tiled == nullptr) return Status::error("skinny_gemm: the CUDA driver has no cuTensorMapEncodeTiled");
  // [panels of the depth, 2 halves of a tile, rows, 64]
  const cuuint64_t row_bytes = static_cast<cuuint64_t>(gemm.depth) * 2;
  const auto columns = static_cast<cuuint64_t>(gemm.columns);
  const cuuint64_t half =
      gemm.epilogue == GemmEpilogue::kSwiGlu ? columns / 2 : kBoxRows;  // rows between a tile's halves
  const cuuint64_t sizes[] = {kPanel, columns - half, 2, static_cast<cuuint64_t>(gemm.depth / kPanel)};
  const cuuint64_t strides[] = {row_bytes, half * row_bytes, kPanel * 2};
  const cuuint32_t box[] = {kPanel, kBoxRows, 2, kPanels}, steps[] = {1, 1, 1, 1};
  const auto type =
      gemm.type == GemmType::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const CUresult error = encode_tiled(&map, type, 4, const_cast<void*>(gemm.weight), sizes, strides, box, steps,
                                      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (error == CUDA_SUCCESS) return {};
  return Status::error("skinny_gemm: the driver makes no tensor map of weights of " + std::to_string(gemm.columns) +
                       " x " + std::to_string(gemm.depth) + " (CUDA driver error " + std::to_string(error) + ")");
}

// The kernel of a type and an epilogue; null: there is none.
const void* find_kernel(GemmType type, GemmEpilogue epilogue) {
  using enum GemmEpilogue;
  const auto of = [&]<class T>(T) -> const void* {
    switch (epilogue) {
      case kStore: return reinterpret_cast<const void*>(skinny_gemm<T, kStore>);
      case kAddResidual: return reinterpret_cast<const void*>(skinny_gemm<T, kAddResidual>);
      case kSwiGlu: return reinterpret_cast<const void*>(skinny_gemm<T, kSwiGlu>);
    }
    return nullptr;
  };
  if (type == GemmType::kBFloat16) return of(__nv_bfloat16());
  if (type == GemmType::kFloat16) return of(__half());
  return nullptr;
}

Status error_of(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return Status::error(std::string("skinny_gemm could not be launched: ") + cudaGetErrorString(error));
}

}  // namespace

bool fits_skinny_gemm(int32_t rows, int32_t columns, int32_t depth) {
  return rows >= 1 && rows <= kMaxSkinnyRows && columns >= kTileRows && columns % kTileRows == 0 && depth >= kPanel &&
         depth % kPanel == 0 && divide(rows, columns, depth).splits <= kMaxSplits;
}

size_t skinny_counter_bytes(int32_t columns) { return sizeof(int) * kParts * (columns / kTileRows); }

size_t skinny_partial_bytes(int32_t columns, int32_t depth) {
  const Division d = divide(kMaxSkinnyRows, columns, depth);  // fewer rows need no more
  return d.splits == 1 ? 0 : size_t{1} * d.tiles * d.splits * kPairs * sizeof(float2);
}

Status load_skinny_gemm(GemmType type, GemmEpilogue epilogue) {
  const void* const kernel = find_kernel(type, epilogue);
  if (kernel == nullptr) return Status::error("skinny_gemm multiplies bfloat16 and float16 alone");
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaFuncAttributes attributes{};
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 most - static_cast<int>(attributes.sharedSizeBytes));
  }
  if (error == cudaSuccess) {
    error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  return error_of(error);
}

Status launch(const SkinnyGemm& gemm, cudaStream_t stream) {
  if (gemm.rows == 0) return {};
  if (!fits_skinny_gemm(gemm.rows, gemm.columns, gemm.depth)) {
    return Status::error("skinny_gemm takes 1 to " + std::to_string(kMaxSkinnyRows) +
                         " rows, columns in multiples of 16 and a depth in multiples of 64: got " +
                         std::to_string(gemm.rows) + " x " + std::to_string(gemm.columns) + " x " +
                         std::to_string(gemm.depth));
  }
  CUtensorMap map;
  if (Status status = encode(map, gemm); !status.ok()) return status;
  if (Status status = load_skinny_gemm(gemm.type, gemm.epilogue); !status.ok()) return status;
  Work work{.output = gemm.output,
            .input = gemm.input,
            .residual = gemm.residual,
            .partials = static_cast<float2*>(gemm.partials),
            .arrived = static_cast<int*>(gemm.counters),
            .rows = gemm.rows,
            .columns = gemm.columns,
            .depth = gemm.depth,
            .division = divide(gemm.rows, gemm.columns, gemm.depth)};
  const Division& division = work.division;
  const void* const kernel = find_kernel(gemm.type, gemm.epilogue);
  const int threads = (division.warps + kStoringWarps) * 32;
  int device = 0, processors = 0, blocks_each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, kernel, threads, division.shared_bytes());
  }
  if (error == cudaSuccess && blocks_each == 0) error = cudaErrorInvalidConfiguration;
  if (error != cudaSuccess) return error_of(error);
  const int blocks = std::max(1, std::min(division.tiles, processors * blocks_each / division.splits));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks * division.splits;
  config.blockDim = threads;
  config.dynamicSmemBytes = division.shared_bytes();
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = gemm.programmatic_launch ? 1 : 0;
  void* parameters[] = {&map, &work};
  return error_of(cudaLaunchKernelExC(&config, kernel, parameters));
}

}  // namespace inflight::gpu
