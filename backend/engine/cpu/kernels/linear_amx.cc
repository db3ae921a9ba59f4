#include <immintrin.h>

#include "engine/cpu/kernels/integer_weights_avx512.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/kernels/tiles_amx.h"
#include "engine/cpu/kernels/vector.h"

// Products of the matrix unit: a tile of 16 tokens by 32 columns times one of 32 columns by a panel's 16 rows, both of
// bfloat16. A lane of a tile holds two neighboring columns. Weights of other types are converted as they are needed,
// once for all tokens of a task.
namespace inflight::cpu {
namespace {

static_assert(kAmxTileTokens == kTileRows);
constexpr int64_t kMaxTilesPerPass = 32;  // of a panel: so that two passes' weights stay in the second-level cache
constexpr int64_t kTileOctets = kAmxTileColumns / 8;
constexpr int64_t kMaxTokenTiles = kMaxAmxTaskTokens / kAmxTileTokens;

// [even[0], odd[0], even[1], odd[1], ...] for the 16 lanes of each, which are the two halves of `both`.
__m512i interleave(__m512i both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

__m512i to_bfloat16(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

// Each type has: write_octet(), which writes eight columns of a panel as four rows of a tile.
template <class Weight>
struct Integers {
  static void write_octet(const PackedLayout& layout, const std::byte* panel, int64_t octet, std::byte* rows) {
    __m512 scale, minimum;
    load_group<Weight>(layout, panel, octet / kTileOctets / layout.segments_per_group, scale, minimum);
    const auto write_pair = [&](int64_t row, __m512 first, __m512 second) {
      first = _mm512_fmadd_ps(first, scale, minimum);
      second = _mm512_fmadd_ps(second, scale, minimum);
      _mm512_store_si512(rows + row * 64, interleave(to_bfloat16(first, second)));
    };
    const Octet columns(panel + layout.weight_offset + octet * Weight::kOctetBytes);
    write_pair(0, columns.template get<0>(), columns.template get<1>());
    write_pair(1, columns.template get<2>(), columns.template get<3>());
    write_pair(2, columns.template get<4>(), columns.template get<5>());
    write_pair(3, columns.template get<6>(), columns.template get<7>());
  }

 private:
  struct Octet {
    explicit Octet(const std::byte* p) {
      if constexpr (Weight::kIsPacked) {
        low = _mm512_loadu_si512(p);
      } else {
        Weight::load(p, low, high);
      }
    }

    template <int kColumn>
    __m512 get() const {
      if constexpr (Weight::kIsPacked) {  // from a table, whose index is the lowest four bits
        const __m512 values = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        return _mm512_permutexvar_ps(_mm512_srli_epi32(low, kColumn % 4 * 8 + kColumn / 4 * 4), values);
      } else {
        const __m512i quad = kColumn < 4 ? low : high;
        return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(quad, kColumn % 4 * 8), _mm512_set1_epi32(0xff)));
      }
    }

    __m512i low, high;
  };
};

struct BFloat16 {
  static void write_octet(const PackedLayout&, const std::byte* panel, int64_t octet, std::byte* rows) {
    const std::byte* columns = panel + octet * 4 * 64;
    for (int64_t i = 0; i < 4 * 64; i += 64) {
      _mm512_store_si512(rows + i, interleave(_mm512_loadu_si512(columns + i)));
    }
  }
};

template <int kPanels>
struct alignas(64) WeightTiles {
  std::byte tiles[kPanels][kMaxTilesPerPass * kTileBytes];
};

// Writes tiles [first, last) of some panels' weights, a few octets at a time: between other instructions, which the
// matrix unit works on.
template <class Weight, int kPanels>
class WeightTilesWriter {
 public:
  WeightTilesWriter() = default;
  WeightTilesWriter(const PackedLayout& layout, const std::byte* const (&panels)[kPanels], int64_t first, int64_t last,
                    WeightTiles<kPanels>& weights)
      : layout_(&layout), octets_(kTileOctets * (last - first)), first_(kTileOctets * first), left_(kPanels * octets_) {
    for (int p = 0; p < kPanels; ++p) {
      panels_[p] = panels[p];
      tiles_[p] = weights.tiles[p];
    }
  }

  int64_t left() const { return left_; }

  void write(int64_t octets) {
    for (; octets > 0 && left_ > 0; --octets, --left_) {
      Weight::write_octet(*layout_, panels_[panel_], first_ + octet_, tiles_[panel_] + octet_ * 4 * 64);
      if (++octet_ < octets_) continue;
      octet_ = 0;
      ++panel_;
    }
  }

 private:
  const PackedLayout* layout_ = nullptr;
  const std::byte* panels_[kPanels];
  std::byte* tiles_[kPanels];
  int64_t octets_ = 0, first_ = 0, left_ = 0;
  int64_t octet_ = 0;
  int panel_ = 0;
};

// The sums of 16 tokens with the rows of one panel.
struct alignas(64) Sums {
  float values[kTileRows][kPanelRows];
};

// sums[t][p] (+)= tokens[t] · weights[p], over `count` tiles of each. The tiles' registers: 0 to 3 are sums, 4 and 5
// tokens, 6 and 7 weights.
template <int kTokenTiles, int kPanels, class Writer>
void multiply_tiles(const std::byte* tokens, int64_t token_tile_bytes, const WeightTiles<kPanels>& weights,
                    int64_t count, bool begins, Sums (*sums)[kPanels], Writer& writer, int64_t octets) {
  constexpr int kSecondPanel = kPanels - 1, kSecondTokens = kTokenTiles - 1;
  if (begins) {
    _tile_loadd(0, kZeros, 0);
    if constexpr (kPanels == 2) _tile_loadd(1, kZeros, 0);
    if constexpr (kTokenTiles == 2) _tile_loadd(2, kZeros, 0);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_loadd(3, kZeros, 0);
  } else {
    _tile_loadd(0, sums[0][0].values, 64);
    if constexpr (kPanels == 2) _tile_loadd(1, sums[0][kSecondPanel].values, 64);
    if constexpr (kTokenTiles == 2) _tile_loadd(2, sums[kSecondTokens][0].values, 64);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_loadd(3, sums[kSecondTokens][kSecondPanel].values, 64);
  }
  const std::byte* second_tokens = tokens + kSecondTokens * token_tile_bytes;
  for (int64_t i = 0; i < count * kTileBytes; i += kTileBytes) {
    _tile_loadd(4, tokens + i, 64);
    _tile_loadd(6, weights.tiles[0] + i, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kPanels == 2) {
      _tile_loadd(7, weights.tiles[kSecondPanel] + i, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTokenTiles == 2) {
      _tile_loadd(5, second_tokens + i, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_dpbf16ps(3, 5, 7);
    writer.write(octets);
  }
  _tile_stored(0, sums[0][0].values, 64);
  if constexpr (kPanels == 2) _tile_stored(1, sums[0][kSecondPanel].values, 64);
  if constexpr (kTokenTiles == 2) _tile_stored(2, sums[kSecondTokens][0].values, 64);
  if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_stored(3, sums[kSecondTokens][kSecondPanel].values, 64);
}

// y (+)= sums + bias, for the tokens of the task from `token` on that are in the tile.
void store_sums(const LinearTask& task, int64_t token, int64_t panel, const Sums& sums) {
  const int64_t row = panel * kPanelRows;
  const __mmask16 lanes = lanes_below(task.layout->rows - row);
  const __m512 bias = task.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, task.bias + row);
  for (int64_t t = 0; t < kTileRows && token + t < task.last_token; ++t) {
    float* y = task.y + (token + t) * task.y_stride + row;
    __m512 value = _mm512_add_ps(_mm512_load_ps(sums.values[t]), bias);
    if (task.accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), value);
    _mm512_mask_storeu_ps(y, lanes, value);
  }
}

// SiLU(sums[0]) * sums[1], of 16 of the gate's rows and as many of up's, as columns of the next layer's input.
void store_activated(const LinearTask& task, int64_t token, int64_t panel, const Sums (&sums)[2]) {
  const int64_t columns = task.layout->rows / 2;
  std::byte* tile = task.activated + token * columns * 2 + panel / 2 * kTileBytes + panel % 2 * 32;
  const float* bias = task.bias == nullptr ? nullptr : task.bias + panel * kPanelRows;
  for (int64_t t = 0; t < kTileRows && token + t < task.last_token; ++t) {
    __m512 gate = _mm512_load_ps(sums[0].values[t]), up = _mm512_load_ps(sums[1].values[t]);
    if (bias != nullptr) {
      gate = _mm512_add_ps(gate, _mm512_loadu_ps(bias));
      up = _mm512_add_ps(up, _mm512_loadu_ps(bias + columns));
    }
    const __m512 silu = gate / (amx::exp(-gate) + 1.0f);
    const __m256i halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(silu * up));
    _mm256_store_si256(reinterpret_cast<__m256i*>(tile + t * 64), halves);
  }
}

// store(unit, token, sums) for every 16 tokens and `units` times kPanels panels, which panel_of(unit, p) names.
template <class Weight, int kPanels, class PanelOf, class Store>
void multiply_units(const LinearTask& task, int64_t units, const PanelOf& panel_of, const Store& store) {
  const PackedLayout& layout = *task.layout;
  const int64_t tiles = layout.columns / kAmxTileColumns;
  const int64_t passes = (tiles + kMaxTilesPerPass - 1) / kMaxTilesPerPass;
  const int64_t token_tile_bytes = tiles * kTileBytes;
  const int64_t token_steps = (task.last_token - task.first_token + 2 * kTileRows - 1) / (2 * kTileRows);
  WeightTiles<kPanels> buffers[2];
  Sums sums[kMaxTokenTiles][kPanels];
  const auto writer_of = [&](int64_t index) {
    const int64_t unit = index / passes, pass = index % passes;
    if (unit == units) return WeightTilesWriter<Weight, kPanels>();
    const std::byte* panels[kPanels];
    for (int p = 0; p < kPanels; ++p) panels[p] = task.panels + panel_of(unit, p) * layout.panel_bytes;
    return WeightTilesWriter<Weight, kPanels>(layout, panels, pass * tiles / passes, (pass + 1) * tiles / passes,
                                              buffers[index % 2]);
  };
  auto writer = writer_of(0);
  writer.write(writer.left());
  for (int64_t index = 0; index < units * passes; ++index) {
    const int64_t unit = index / passes, pass = index % passes;
    const int64_t first = pass * tiles / passes, last = (pass + 1) * tiles / passes;
    const WeightTiles<kPanels>& weights = buffers[index % 2];
    writer = writer_of(index + 1);
    const int64_t steps = token_steps * (last - first);
    const int64_t octets = (writer.left() + steps - 1) / steps;
    make_visible_to_tiles();
    for (int64_t token = task.first_token; token < task.last_token; token += 2 * kTileRows) {
      Sums(*tile_sums)[kPanels] = sums + (token - task.first_token) / kTileRows;
      const std::byte* x = task.x_tiles + token / kTileRows * token_tile_bytes + first * kTileBytes;
      const bool is_one_tile = token + kTileRows >= task.last_token;
      if (is_one_tile) {
        multiply_tiles<1>(x, token_tile_bytes, weights, last - first, pass == 0, tile_sums, writer, octets);
      } else {
        multiply_tiles<2>(x, token_tile_bytes, weights, last - first, pass == 0, tile_sums, writer, octets);
      }
      if (pass + 1 < passes) continue;
      store(unit, token, tile_sums[0]);
      if (!is_one_tile) store(unit, token + kTileRows, tile_sums[1]);
    }
    writer.write(writer.left());
  }
}

// Panels [first, ...), kPanels at a time.
template <class Weight, int kPanels>
void multiply_panels(const LinearTask& task, int64_t first, int64_t units) {
  multiply_units<Weight, kPanels>(
      task, units, [&](int64_t unit, int p) { return first + unit * kPanels + p; },
      [&](int64_t unit, int64_t token, const Sums(&sums)[kPanels]) {
        for (int p = 0; p < kPanels; ++p) store_sums(task, token, first + unit * kPanels + p, sums[p]);
      });
}

// Panels of the gate's rows, each with the one of up's rows that belongs to it.
template <class Weight>
void multiply_gate_and_up(const LinearTask& task) {
  const int64_t gate_panels = task.layout->rows / 2 / kPanelRows;
  multiply_units<Weight, 2>(
      task, task.last_panel - task.first_panel,
      [&](int64_t unit, int p) { return task.first_panel + unit + p * gate_panels; },
      [&](int64_t unit, int64_t token, const Sums(&sums)[2]) {
        store_activated(task, token, task.first_panel + unit, sums);
      });
}

template <class Weight>
void multiply(const LinearTask& task) {
  const TilesInUse tiles;
  if (task.activated != nullptr) return multiply_gate_and_up<Weight>(task);
  const int64_t panels = task.last_panel - task.first_panel;
  multiply_panels<Weight, 2>(task, task.first_panel, panels / 2);
  if (panels % 2 != 0) multiply_panels<Weight, 1>(task, task.last_panel - 1, 1);
}

}  // namespace

void linear_rounded_amx(const LinearTask& task) {
  switch (task.layout->type) {
    case WeightType::kBFloat16: return multiply<BFloat16>(task);
    case WeightType::kInt8: return multiply<Integers<Int8>>(task);
    case WeightType::kInt4:
      return task.layout->has_minimum ? multiply<Integers<Int4WithMinimum>>(task) : multiply<Integers<Int4>>(task);
    default: __builtin_unreachable();  // see input_form()
  }
}

void write_token_to_tiles_amx(const float* x, int64_t columns, std::byte* tiles) {
  for (int64_t k = 0; k < columns; k += kAmxTileColumns, tiles += kTileBytes) {
    _mm512_storeu_si512(tiles, to_bfloat16(_mm512_loadu_ps(x + k), _mm512_loadu_ps(x + k + 16)));
  }
}

}  // namespace inflight::cpu
