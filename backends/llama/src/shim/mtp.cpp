// See engine.h: the calls that llama.cpp offers to its own tools only, in the staging header llama-ext.h.

#include "engine.h"
#include "guarded.h"

#include "llama-ext.h"

#include <stdexcept>

extern "C" {

bool hearth_shim_mtp_begin(llama_context * trunk, llama_context * heads, llama_batch_ext ** batch, char * message) {
    return guarded(message, [&] {
        *batch = llama_batch_ext_init(heads);
        // Of each token the trunk computes, and of the tokens whose guess is read.
        llama_set_embeddings_nextn(trunk, true, false);
        llama_set_embeddings_nextn(heads, true, true);
    });
}

bool hearth_shim_mtp_state(llama_context * context, int32_t index, const float ** state, char * message) {
    return guarded(message, [&] {
        *state = llama_get_embeddings_nextn_ith(context, index);
        if (*state == nullptr) {
            throw std::runtime_error("llama.cpp kept no state of a token");
        }
    });
}

bool hearth_shim_mtp_decode(llama_context * heads, llama_batch_ext * batch, const hearth_shim_mtp_token * tokens, size_t n,
                            size_t n_embd, int32_t * answer, char * message) {
    return guarded(message, [&] {
        llama_batch_ext_clear(batch);
        for (size_t i = 0; i < n; i++) {
            const int32_t index = llama_batch_ext_add_token(batch, tokens[i].seq, tokens[i].token);
            if (index < 0 || !llama_batch_ext_set_pos(batch, index, &tokens[i].pos) ||
                !llama_batch_ext_set_embd_token(batch, index, { tokens[i].state, 1, n_embd }) ||
                !llama_batch_ext_set_output_logits(batch, index, tokens[i].output)) {
                throw std::runtime_error("llama.cpp refused a token to guess from");
            }
        }
        *answer = llama_process(heads, LLAMA_PROCESS_TYPE_DECODE, batch);
        llama_synchronize(heads);
    });
}
}
