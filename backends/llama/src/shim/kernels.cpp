// A buffer type of ggml's CPU whose tensors are multiplied by `src/kernels`, and which takes attention too.
//
// ggml asks the CPU's "extra" buffer types, in order, whether a weight may live in them, and hands each operation to the
// type that knows it. The list belongs to the CPU module, which this library does not link: its few functions are looked up
// by name. Without them, or on another processor, nothing is registered and ggml computes everything.

#include "engine.h"

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-cpu/traits.h"

#if defined(__x86_64__) && defined(__linux__)
#include <dlfcn.h>

#include <algorithm>
#include <cstring>

// Mirrored by hand from src/kernels/product/mod.rs.
struct hearth_product {
    ggml_type format;
    size_t n_weights;
    size_t n_rows;
    size_t n_tokens;
    const void * weights;
    void * tokens;
    float * out;
};

// Mirrored by hand from src/kernels/attention/mod.rs.
struct hearth_tensor {
    const void * data;
    size_t stride;
    size_t head_stride;
};
struct hearth_attention {
    size_t n_key;
    size_t n_value;
    size_t n_tokens;
    size_t n_heads;
    size_t n_memory_heads;
    size_t n_cells;
    float scale;
    hearth_tensor queries;
    hearth_tensor keys;
    hearth_tensor values;
    const void * mask;
    size_t mask_stride;
    float * out;
    void * work;
};
struct hearth_threads {
    size_t index;
    size_t n;
    ggml_threadpool * pool;
    void (*barrier)(ggml_threadpool *);
    void (*set_next)(ggml_threadpool *, int);
    int (*take_next)(ggml_threadpool *, int);
};

extern "C" {
size_t hearth_kernels_attention_size(const hearth_attention * attention, size_t n_threads);
void hearth_kernels_attend(const hearth_attention * attention, const hearth_threads * threads);
size_t hearth_kernels_packed_size(ggml_type type, size_t n_weights, size_t n_rows);
void hearth_kernels_pack(ggml_type type, size_t n_weights, size_t n_rows, const void * from, void * to);
size_t hearth_kernels_rounded_size(ggml_type type, size_t n_weights, size_t n_tokens);
void hearth_kernels_round(const hearth_product * product, size_t index, const float * token);
void hearth_kernels_multiply(const hearth_product * product, size_t start, size_t end);
}

// ggml's base classes have these in the CPU module.
ggml::cpu::tensor_traits::~tensor_traits() {}
ggml::cpu::extra_buffer_type::~extra_buffer_type() {}

namespace {

constexpr size_t lanes = 16;

void (*barrier)(ggml_threadpool *);
void (*chunk_set)(ggml_threadpool *, int);
int (*chunk_add)(ggml_threadpool *, int);

ggml_backend_buffer_type buffer_type;

bool is_ours(const ggml_tensor * tensor) {
    return tensor != nullptr && tensor->buffer != nullptr && tensor->buffer->buft == &buffer_type;
}

size_t packed_size(const ggml_tensor * tensor) {
    if (ggml_n_dims(tensor) != 2) {
        return 0;
    }
    return hearth_kernels_packed_size(tensor->type, tensor->ne[0], tensor->ne[1]);
}

struct product_traits : ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        const ggml_tensor * weights = op->src[0];
        size = hearth_kernels_rounded_size(weights->type, weights->ne[0], ggml_nrows(op->src[1]));
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * tokens = op->src[1];
        GGML_ASSERT(tokens->nb[0] == sizeof(float) && ggml_is_contiguous(op));
        const hearth_product product = {
            weights->type,   static_cast<size_t>(weights->ne[0]), static_cast<size_t>(weights->ne[1]),
            static_cast<size_t>(ggml_nrows(tokens)), weights->data, params->wdata, static_cast<float *>(op->data),
        };
        for (size_t index = params->ith; index < product.n_tokens; index += params->nth) {
            const size_t i1 = index % tokens->ne[1];
            const size_t i2 = index / tokens->ne[1] % tokens->ne[2];
            const size_t i3 = index / tokens->ne[1] / tokens->ne[2];
            const char * token =
                static_cast<const char *>(tokens->data) + i1 * tokens->nb[1] + i2 * tokens->nb[2] + i3 * tokens->nb[3];
            hearth_kernels_round(&product, index, reinterpret_cast<const float *>(token));
        }
        // Each thread starts with a share of its own; the rest go to whoever is free, so that a thread that lost its
        // processor holds up the others by one share only.
        if (params->ith == 0) {
            chunk_set(params->threadpool, params->nth);
        }
        barrier(params->threadpool);
        const size_t n_tiles = product.n_rows / lanes;
        const size_t n_shares = params->nth * 4;
        for (size_t share = params->ith; share < n_shares; share = chunk_add(params->threadpool, 1)) {
            hearth_kernels_multiply(&product, n_tiles * share / n_shares, n_tiles * (share + 1) / n_shares);
        }
        return true;
    }
};

// Attention over half-precision memory of one stream, with a mask that only hides cells: no slopes, no cap, no sinks.
bool is_plain_attention(const ggml_tensor * op) {
    const ggml_tensor * queries = op->src[0];
    const ggml_tensor * keys = op->src[1];
    const ggml_tensor * values = op->src[2];
    const ggml_tensor * mask = op->src[3];
    float params[3]; // scale, slope, cap
    std::memcpy(params, op->op_params, sizeof(params));
    return op->op == GGML_OP_FLASH_ATTN_EXT && op->src[4] == nullptr && params[1] == 0 && params[2] == 0 &&
           mask != nullptr && mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1 &&
           mask->nb[0] == sizeof(ggml_fp16_t) && queries->type == GGML_TYPE_F32 && queries->ne[3] == 1 &&
           queries->nb[0] == sizeof(float) && keys->type == GGML_TYPE_F16 && keys->nb[0] == sizeof(ggml_fp16_t) &&
           values->type == GGML_TYPE_F16 && values->nb[0] == sizeof(ggml_fp16_t) && keys->ne[0] % lanes == 0 &&
           values->ne[0] % lanes == 0 && keys->ne[2] == values->ne[2] && queries->ne[2] % keys->ne[2] == 0 &&
           ggml_is_contiguous(op);
}

struct attention_traits : ggml::cpu::tensor_traits {
    static hearth_attention describe(const ggml_tensor * op, void * work) {
        const auto tensor = [](const ggml_tensor * t) { return hearth_tensor{ t->data, t->nb[1], t->nb[2] }; };
        const auto size = [](int64_t n) { return static_cast<size_t>(n); };
        const ggml_tensor * queries = op->src[0];
        const ggml_tensor * keys = op->src[1];
        hearth_attention attention = {
            size(keys->ne[0]), size(op->src[2]->ne[0]), size(queries->ne[1]), size(queries->ne[2]),
            size(keys->ne[2]), size(keys->ne[1]),       0,                    tensor(queries),
            tensor(keys),      tensor(op->src[2]),      op->src[3]->data,     op->src[3]->nb[1],
            static_cast<float *>(op->data), work,
        };
        std::memcpy(&attention.scale, op->op_params, sizeof(float));
        return attention;
    }

    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        const hearth_attention attention = describe(op, nullptr);
        size = hearth_kernels_attention_size(&attention, n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const hearth_attention attention = describe(op, params->wdata);
        const hearth_threads threads = {
            static_cast<size_t>(params->ith), static_cast<size_t>(params->nth), params->threadpool, barrier, chunk_set,
            chunk_add,
        };
        hearth_kernels_attend(&attention, &threads);
        return true;
    }
};

struct extra : ggml::cpu::extra_buffer_type {
    product_traits product;
    attention_traits attention;

    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        return op->op == GGML_OP_MUL_MAT && is_ours(op->src[0]) && packed_size(op->src[0]) > 0 &&
               op->src[1]->type == GGML_TYPE_F32 &&
               (op->src[1]->buffer == nullptr || ggml_backend_buft_is_host(op->src[1]->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT && is_ours(op->src[0])) {
            return &product;
        }
        return is_plain_attention(op) ? &attention : nullptr;
    }
};

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    hearth_kernels_pack(tensor->type, tensor->ne[0], tensor->ne[1], data, tensor->data);
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer != nullptr) {
        buffer->buft = type;
        buffer->iface.init_tensor = nullptr;
        buffer->iface.set_tensor = set_tensor;
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return std::max(packed_size(tensor), ggml_nbytes(tensor));
}

template <typename Function> bool look_up(void * module, const char * name, Function *& function) {
    function = reinterpret_cast<Function *>(dlsym(module, name));
    return function != nullptr;
}

using buffer_types = std::vector<ggml_backend_buffer_type_t> & ();

bool register_kernels(std::vector<ggml_backend_buffer_type_t> & types) {
    ggml_backend_buffer_type_t plain = ggml_backend_cpu_buffer_type();
    buffer_type.iface = plain->iface;
    buffer_type.iface.get_name = [](ggml_backend_buffer_type_t) { return "CPU_HEARTH"; };
    buffer_type.iface.alloc_buffer = alloc_buffer;
    buffer_type.iface.get_alloc_size = alloc_size;
    buffer_type.iface.is_host = nullptr;
    buffer_type.device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    buffer_type.context = new extra();
    // Before ggml's own rearranged types, but after AMX, whose tiles no kernel here can beat.
    auto place = types.begin();
    if (place != types.end() && std::strcmp(ggml_backend_buft_name(*place), "AMX") == 0) {
        ++place;
    }
    types.insert(place, &buffer_type);
    return true;
}

}

extern "C" bool hearth_shim_register_kernels(const char * module_path) {
    // Loaded already; this only finds it again, and it stays.
    void * module = dlopen(module_path, RTLD_NOW | RTLD_NOLOAD);
    buffer_types * types;
    return module != nullptr && look_up(module, "_Z39ggml_backend_cpu_get_extra_buffer_typesv", types) &&
           look_up(module, "ggml_barrier", barrier) && look_up(module, "ggml_threadpool_chunk_set", chunk_set) &&
           look_up(module, "ggml_threadpool_chunk_add", chunk_add) && register_kernels(types());
}

extern "C" bool hearth_shim_register_linked_kernels(const hearth_linked_module * module) {
    barrier = reinterpret_cast<decltype(barrier)>(module->barrier);
    chunk_set = reinterpret_cast<decltype(chunk_set)>(module->chunk_set);
    chunk_add = reinterpret_cast<decltype(chunk_add)>(module->chunk_add);
    return register_kernels(reinterpret_cast<buffer_types *>(module->buffer_types)());
}
#else
extern "C" bool hearth_shim_register_kernels(const char *) {
    return false;
}
extern "C" bool hearth_shim_register_linked_kernels(const hearth_linked_module *) {
    return false;
}
#endif
