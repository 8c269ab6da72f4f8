// See images.h.

#include "images.h"

#include "engine.h"
#include "guarded.h"

#include "mtmd.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace {

struct batch_free {
    void operator()(llama_batch_ext * batch) const { llama_batch_ext_free(batch); }
};

struct chunks_free {
    void operator()(mtmd_input_chunks * chunks) const { mtmd_input_chunks_free(chunks); }
};

struct bitmap_free {
    void operator()(mtmd_bitmap * bitmap) const { mtmd_bitmap_free(bitmap); }
};

// Lets tokens see those behind them, for as long as it lives.
class both_ways {
  public:
    both_ways(llama_context * context, bool on) : context(on ? context : nullptr) {
        if (this->context != nullptr) {
            llama_set_causal_attn(context, false);
        }
    }
    ~both_ways() {
        if (context != nullptr) {
            llama_set_causal_attn(context, true);
        }
    }
    both_ways(const both_ways &) = delete;
    both_ways & operator=(const both_ways &) = delete;

  private:
    llama_context * context;
};

void add(llama_batch_ext * batch, llama_seq_id seq, const float * embedding, size_t n_floats, const mtmd_decoder_pos & at) {
    const int32_t index = llama_batch_ext_add_embd(batch, seq, { embedding, 1, n_floats });
    // The order that llama.cpp's own tools give them.
    const llama_pos positions[] = { llama_pos(at.t), llama_pos(at.y), llama_pos(at.x), llama_pos(at.z) };
    if (index < 0 || !llama_batch_ext_set_pos(batch, index, positions)) {
        throw std::runtime_error("llama.cpp refused an embedding");
    }
}

} // namespace

extern "C" {

bool hearth_shim_projector_open(const char * path, const llama_model * model, int32_t n_threads, mtmd_context ** projector,
                                char * message) {
    return guarded(message, [&] {
        mtmd_context_params params = mtmd_context_params_default();
        params.n_threads = n_threads;
        // The first image costs a little more instead of every start.
        params.warmup = false;
        mtmd_context * opened = mtmd_init_from_file(path, model, params);
        if (opened != nullptr && !mtmd_support_vision(opened)) {
            mtmd_free(opened);
            throw std::runtime_error("it reads no images");
        }
        *projector = opened;
    });
}

void hearth_shim_projector_free(mtmd_context * projector) {
    mtmd_free(projector);
}

bool hearth_shim_image_new(const mtmd_context * projector, const uint8_t * rgb, uint32_t width, uint32_t height,
                           mtmd_input_chunks ** image, char * message) {
    return guarded(message, [&] {
        const std::unique_ptr<mtmd_bitmap, bitmap_free> bitmap(mtmd_bitmap_init(width, height, rgb));
        std::unique_ptr<mtmd_input_chunks, chunks_free> chunks(mtmd_input_chunks_init());
        const char * marker = mtmd_get_marker(projector);
        const mtmd_input_text text = { marker, std::strlen(marker), false, true };
        const mtmd_bitmap * const bitmaps[] = { bitmap.get() };
        if (mtmd_tokenize(projector, chunks.get(), &text, bitmaps, 1) != 0) {
            throw std::runtime_error("llama.cpp cannot prepare an image of this size");
        }
        *image = chunks.release();
    });
}

void hearth_shim_image_free(mtmd_input_chunks * image) {
    mtmd_input_chunks_free(image);
}

size_t hearth_shim_image_size(const mtmd_input_chunks * image) {
    return mtmd_input_chunks_size(image);
}

void hearth_shim_image_piece_get(const mtmd_input_chunks * image, size_t index, hearth_shim_image_piece * piece) {
    const mtmd_input_chunk * chunk = mtmd_input_chunks_get(image, index);
    piece->tokens = nullptr;
    piece->n_cells = mtmd_input_chunk_get_n_tokens(chunk);
    piece->n_positions = mtmd_input_chunk_get_n_pos(chunk);
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
        piece->tokens = mtmd_input_chunk_get_tokens_text(chunk, &piece->n_cells);
    }
}

bool hearth_shim_image_encode(mtmd_context * projector, const mtmd_input_chunks * image, size_t index, float * embeddings,
                              size_t n_floats, char * message) {
    return guarded(message, [&] {
        if (mtmd_encode_chunk(projector, mtmd_input_chunks_get(image, index)) != 0) {
            throw std::runtime_error("llama.cpp cannot compute the image");
        }
        std::copy_n(mtmd_get_output_embd(projector), n_floats, embeddings);
    });
}

bool hearth_shim_image_is_whole(const mtmd_context * projector, const mtmd_input_chunks * image, size_t index) {
    return mtmd_decode_use_non_causal(projector, mtmd_input_chunks_get(image, index));
}

bool hearth_shim_image_append(const mtmd_context * projector, llama_context * context, const mtmd_input_chunks * image,
                              size_t index, const float * embeddings, llama_seq_id seq, llama_pos position, int32_t * answer,
                              char * message) {
    const bool called = guarded(message, [&] {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(image, index);
        const size_t n_cells  = mtmd_input_chunk_get_n_tokens(chunk);
        const size_t n_floats = llama_model_n_embd_inp(llama_get_model(context));
        const bool is_mrope   = mtmd_decode_use_mrope(projector);
        const auto * tokens   = mtmd_input_chunk_get_tokens_image(chunk);
        const both_ways guard(context, mtmd_decode_use_non_causal(projector, chunk));
        const std::unique_ptr<llama_batch_ext, batch_free> batch(llama_batch_ext_init(context));
        *answer = 0;
        for (size_t from = 0; from < n_cells && *answer == 0;) {
            const size_t end = std::min(n_cells, from + llama_n_batch(context));
            llama_batch_ext_clear(batch.get());
            for (; from < end; ++from) {
                const mtmd_decoder_pos plain = { uint32_t(position + from), 0, 0, 0 };
                const mtmd_decoder_pos at = is_mrope ? mtmd_image_tokens_get_decoder_pos(tokens, position, from) : plain;
                add(batch.get(), seq, embeddings + from * n_floats, n_floats, at);
            }
            *answer = llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch.get());
            llama_synchronize(context);
        }
    });
    if ((!called || *answer != 0) && !llama_memory_seq_rm(llama_get_memory(context), seq, position, -1)) {
        *answer = -1;
    }
    return called;
}

void hearth_shim_image_log(ggml_log_callback callback, void * data) {
    mtmd_log_set(callback, data);
}
}
