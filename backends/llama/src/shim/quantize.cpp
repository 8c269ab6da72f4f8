// See quantize.h.
//
// llama_model_quantize says nothing of how far it is but in its log, where `[   3/ 272] blk.0.attn_k.weight - [...` stands before a
// tensor is worked on. So the log is listened to while it runs: the tensors' sizes, read before, make a fraction of it. Cancelling
// is an exception thrown from there, which llama.cpp catches as it does its own; between two tensors it has no thread running.

#include "quantize.h"

#include "common/imatrix-loader.h"
#include "gguf.h"
#include "guarded.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

// Rows held in memory at once. llama.cpp's own limit is 8 GiB.
constexpr size_t MAX_BUFFER_BYTES = size_t(256) << 20;

struct cancelled : std::exception {
    const char * what() const noexcept override { return "cancelled"; }
};

struct listener {
    const hearth_shim_quantize_job & job;
    std::unordered_map<std::string, size_t> sizes;
    size_t n_done  = 0; // bytes
    size_t n_total = 0;
    bool is_cancelled = false;
    bool is_unwritten = false;
    int  error_number = 0;

    explicit listener(const hearth_shim_quantize_job & job);
    ~listener();

    void read_sizes() {
        const std::unique_ptr<gguf_context, decltype(&gguf_free)> file(
            gguf_init_from_file(job.input, { /*no_alloc=*/true, /*ctx=*/nullptr }), gguf_free);
        const int64_t n = file == nullptr ? 0 : gguf_get_n_tensors(file.get());
        for (int64_t i = 0; i < n; ++i) {
            const size_t size = gguf_get_tensor_size(file.get(), i);
            sizes.emplace(gguf_get_tensor_name(file.get(), i), size);
            n_total += size;
        }
    }

    void report() {
        const float fraction = n_total == 0 ? 0.0f : float(double(n_done) / double(n_total));
        if (!job.progress(job.data, fraction)) {
            is_cancelled = true;
            throw cancelled();
        }
    }

    void begin_tensor(const char * text) {
        const char * const name = std::strstr(text, "] ");
        const char * const end  = name == nullptr ? nullptr : std::strstr(name, " - [");
        if (end == nullptr) {
            return;
        }
        std::string key(name + 2, end);
        key.erase(key.find_last_not_of(' ') + 1);
        const auto size = sizes.find(key);
        if (size != sizes.end()) {
            report();
            n_done += size->second;
            sizes.erase(size);
        }
    }

    void take(ggml_log_level level, const char * text, int number) {
        // The C++ library tells of a write that failed only by this text, and the system of its reason only by a number.
        if (level == GGML_LOG_LEVEL_ERROR && std::strstr(text, "iostream error") != nullptr) {
            error_number = number;
            is_unwritten = true;
        }
        if (text[0] == '[' && level == GGML_LOG_LEVEL_INFO) {
            begin_tensor(text);
        }
    }
};

// The log is the process's, and other threads may write to it: what they say is passed on, and nothing else.
thread_local listener * listening = nullptr;
std::mutex installing;
std::atomic<ggml_log_callback> next{ nullptr };
std::atomic<void *> next_data{ nullptr };

void hear(ggml_log_level level, const char * text, void *) {
    const int number = errno;
    next.load()(level, text, next_data.load());
    if (listening != nullptr) {
        listening->take(level, text, number);
    }
}

listener::listener(const hearth_shim_quantize_job & job) : job(job) {
    const std::lock_guard<std::mutex> lock(installing);
    ggml_log_callback callback = nullptr;
    void * data                = nullptr;
    llama_log_get(&callback, &data);
    // Stays from then on, since another thread may be in it.
    if (callback != hear) {
        next_data = data;
        next      = callback;
        llama_log_set(hear, nullptr);
    }
    listening = this;
}

listener::~listener() {
    listening = nullptr;
}

// The mean of what was seen of each column, as llama.cpp's own tool makes it.
struct matrix {
    std::unordered_map<std::string, std::vector<float>> means;
    std::vector<llama_model_imatrix_data> entries;

    void read(const char * path) {
        common_imatrix file;
        if (!common_imatrix_load(path, file)) {
            throw std::runtime_error("it is no importance matrix, or is damaged");
        }
        for (const auto & [name, entry] : file.entries) {
            const size_t n_matrices = entry.counts.size();
            if (n_matrices == 0 || entry.sums.size() % n_matrices != 0) {
                throw std::runtime_error("its entry for `" + name + "` has the wrong shape");
            }
            const size_t n_columns = entry.sums.size() / n_matrices;
            std::vector<float> & mean = means[name];
            mean = entry.sums;
            for (size_t i = 0; i < mean.size(); ++i) {
                const int64_t count = entry.counts[i / n_columns];
                // An expert that was never asked weighs all columns alike.
                mean[i] = count > 0 ? mean[i] / float(count) : file.is_legacy ? mean[i] : 1.0f;
            }
        }
        for (const auto & [name, mean] : means) {
            entries.push_back({ name.c_str(), mean.data(), mean.size() });
        }
        entries.push_back({ nullptr, nullptr, 0 });
    }

    bool is_of(const std::unordered_map<std::string, size_t> & tensors) const {
        for (const auto & [name, mean] : means) {
            if (tensors.count(name) > 0) {
                return true;
            }
        }
        return false;
    }
};

void quantize(const hearth_shim_quantize_job & job, int32_t * end, char * message) {
    listener listener(job);
    listener.read_sizes();
    matrix matrix;
    if (job.imatrix != nullptr) {
        try {
            matrix.read(job.imatrix);
            if (!matrix.is_of(listener.sizes)) {
                throw std::runtime_error("it is of another model: it knows none of this one's tensors");
            }
        } catch (const std::exception & error) {
            *end = HEARTH_SHIM_QUANTIZE_BAD_MATRIX;
            hearth_shim_write_message(message, error.what());
            return;
        }
    }
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread          = job.n_threads;
    params.ftype            = llama_ftype(job.ftype);
    params.allow_requantize = job.requantize;
    params.imatrix          = job.imatrix == nullptr ? nullptr : matrix.entries.data();
    params.max_buf_size     = MAX_BUFFER_BYTES;
    listener.report();
    const uint32_t failed = llama_model_quantize(job.input, job.output, &params);
    if (failed == 0) {
        listener.n_done = listener.n_total;
        listener.report();
        *end = HEARTH_SHIM_QUANTIZED;
    } else if (listener.is_cancelled) {
        *end = HEARTH_SHIM_QUANTIZE_CANCELLED;
    } else if (listener.is_unwritten) {
        *end = HEARTH_SHIM_QUANTIZE_NOT_WRITTEN;
        hearth_shim_write_message(message, std::strerror(listener.error_number));
    }
}

} // namespace

extern "C" bool hearth_shim_quantize(const hearth_shim_quantize_job * job, int32_t * end, char * message) {
    *end = HEARTH_SHIM_QUANTIZE_FAILED;
    return guarded(message, [&] {
        try {
            quantize(*job, end, message);
        } catch (const cancelled &) {
            *end = HEARTH_SHIM_QUANTIZE_CANCELLED;
        }
    });
}
