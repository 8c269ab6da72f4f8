// Images by llama.cpp's own mtmd library, which is compiled into the shim: embeddings of an image, and batches of them.
//
// Exceptions and messages as in engine.h. Mirrored by hand in src/images.rs.
#pragma once

#include "llama.h"

struct mtmd_context;
struct mtmd_input_chunks;

extern "C" {

// A part of an image as a prompt has it; `tokens` is null for embeddings.
struct hearth_shim_image_piece {
    const llama_token * tokens;
    size_t              n_cells;
    llama_pos           n_positions;
};

// Null without an exception is possible too; the reason is then in llama.cpp's log.
bool hearth_shim_projector_open(const char * path, const llama_model * model, int32_t n_threads, mtmd_context ** projector,
                                char * message);
void hearth_shim_projector_free(mtmd_context * projector);

bool hearth_shim_image_new(const mtmd_context * projector, const uint8_t * rgb, uint32_t width, uint32_t height,
                           mtmd_input_chunks ** image, char * message);
void hearth_shim_image_free(mtmd_input_chunks * image);
size_t hearth_shim_image_size(const mtmd_input_chunks * image);
void hearth_shim_image_piece_get(const mtmd_input_chunks * image, size_t index, hearth_shim_image_piece * piece);

bool hearth_shim_image_encode(mtmd_context * projector, const mtmd_input_chunks * image, size_t index, float * embeddings,
                              size_t n_floats, char * message);
// The embeddings of that piece see each other both ways, and so have to be computed at once.
bool hearth_shim_image_is_whole(const mtmd_context * projector, const mtmd_input_chunks * image, size_t index);
// The answer is that of llama_decode. Unless it is 0, what was appended is removed again.
bool hearth_shim_image_append(const mtmd_context * projector, llama_context * context, const mtmd_input_chunks * image,
                              size_t index, const float * embeddings, llama_seq_id seq, llama_pos position, int32_t * answer,
                              char * message);

void hearth_shim_image_log(ggml_log_callback callback, void * data);
}
