// Main memory for ggml's buffers, taken as it is used.
//
// ggml's own CPU buffers come from the heap and are cleared by writing to them, so a context of 32,768 tokens takes all of its
// memory at once, used or not. Here a large buffer is a mapping of its own: pages that nobody wrote are zero and take
// nothing, and clearing gives them back. What was never cleared (weights in another layout, intermediate results) is used
// as a whole, and gets huge pages.

#include "engine.h"

#include "ggml-backend-impl.h"
#include "ggml-backend.h"

#include <cstring>

#ifdef __linux__
#include <sys/mman.h>

namespace {

constexpr size_t large = size_t(1) << 20;

ggml_backend_buffer_t (*heap_alloc)(ggml_backend_buffer_type_t, size_t);
ggml_backend_buffer_i mapped_interface;

void mapped_free(ggml_backend_buffer_t buffer) {
    munmap(buffer->context, buffer->size);
}

void mapped_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    if (value == 0 && madvise(buffer->context, buffer->size, MADV_DONTNEED) == 0) {
        // A huge page would take the neighbours of every token that is written.
        madvise(buffer->context, buffer->size, MADV_NOHUGEPAGE);
        return;
    }
    std::memset(buffer->context, value, buffer->size);
}

ggml_backend_buffer_t mapped_alloc(ggml_backend_buffer_type_t type, size_t size) {
    if (size < large) {
        return heap_alloc(type, size);
    }
    void * data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        return heap_alloc(type, size);
    }
    madvise(data, size, MADV_HUGEPAGE);
    return ggml_backend_buffer_init(type, mapped_interface, data, size);
}

}

extern "C" void hearth_shim_map_buffers(void) {
    ggml_backend_buffer_type_t type = ggml_backend_cpu_buffer_type();
    if (type->iface.alloc_buffer == mapped_alloc) {
        return;
    }
    // All but allocation is as in ggml's own.
    ggml_backend_buffer_t sample = type->iface.alloc_buffer(type, 64);
    if (sample == nullptr) {
        return;
    }
    mapped_interface = sample->iface;
    ggml_backend_buffer_free(sample);
    mapped_interface.free_buffer = mapped_free;
    mapped_interface.clear = mapped_clear;
    heap_alloc = type->iface.alloc_buffer;
    type->iface.alloc_buffer = mapped_alloc;
}
#else
extern "C" void hearth_shim_map_buffers(void) {}
#endif
