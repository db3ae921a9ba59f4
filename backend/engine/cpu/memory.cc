#include "engine/cpu/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "common/error.h"

namespace inflight::cpu {

Memory::Memory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw_error(ErrorCode::kUnavailable, "cannot reserve ", bytes, " bytes of memory: ", std::strerror(errno),
                "; free some, or rebuild with a smaller --kv-cache-memory or --max-num-tokens");
  }
  madvise(data_, bytes, MADV_HUGEPAGE);  // fewer TLB misses; where it is refused, small pages do
}

Memory::~Memory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace inflight::cpu
