// See engine.h.

#include "engine.h"
#include "guarded.h"

#include "common/log.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-grammar.h"
#include "llama-model.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

void hearth_shim_write_message(char * message, const char * text) {
    size_t len = 0;
    for (; *text != '\0' && len + 1 < HEARTH_SHIM_MESSAGE; ++text) {
        const bool is_space = std::strchr(" \t\r\n", *text) != nullptr;
        if (!is_space) {
            message[len++] = *text;
        } else if (len > 0 && message[len - 1] != ' ') {
            message[len++] = ' ';
        }
    }
    message[len] = '\0';
}

static const char * skip_space_and_comments(const char * at) {
    at += std::strspn(at, " \t\r\n");
    while (*at == '#') {
        at += std::strcspn(at, "\r\n");
        at += std::strspn(at, " \t\r\n");
    }
    return at;
}

extern "C" {

bool hearth_shim_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                          int32_t capacity, bool add_special, bool parse_special, int32_t * answer, char * message) {
    return guarded(message, [&] {
        *answer = llama_tokenize(vocab, text, text_len, tokens, capacity, add_special, parse_special);
    });
}

bool hearth_shim_token_piece(const llama_vocab * vocab, llama_token token, char * buffer, int32_t capacity, bool special,
                             int32_t * answer, char * message) {
    return guarded(message, [&] { *answer = llama_token_to_piece(vocab, token, buffer, capacity, 0, special); });
}

bool hearth_shim_detokenize(const llama_vocab * vocab, const llama_token * tokens, int32_t n_tokens, char * buffer,
                            int32_t capacity, bool remove_special, bool unparse_special, int32_t * answer, char * message) {
    return guarded(message, [&] {
        *answer = llama_detokenize(vocab, tokens, n_tokens, buffer, capacity, remove_special, unparse_special);
    });
}

bool hearth_shim_model_load(const char * path, const llama_model_params * params, llama_model ** model, char * message) {
    return guarded(message, [&] { *model = llama_model_load_from_file(path, *params); });
}

bool hearth_shim_context_new(llama_model * model, const llama_context_params * params, llama_context ** context,
                             char * message) {
    return guarded(message, [&] { *context = llama_init_from_model(model, *params); });
}

int64_t hearth_shim_position_rows(const llama_model * model) {
    return model->pos_embd == nullptr ? 0 : model->pos_embd->ne[1];
}

bool hearth_shim_adapter_load(llama_model * model, const char * path, llama_adapter_lora ** adapter, char * message) {
    return guarded(message, [&] { *adapter = llama_adapter_lora_init(model, path); });
}

bool hearth_shim_adapters_set(llama_context * context, llama_adapter_lora ** adapters, size_t n, float * scales,
                              char * message) {
    return guarded(message, [&] { llama_set_adapters_lora(context, adapters, n, scales); });
}

bool hearth_shim_decode(llama_context * context, const llama_batch * batch, bool encode, int32_t * answer,
                        char * message) {
    return guarded(message, [&] {
        *answer = encode ? llama_encode(context, *batch) : llama_decode(context, *batch);
        // Errors of an asynchronous device must show up here and not at the first read of the logits.
        llama_synchronize(context);
    });
}

bool hearth_shim_seq_size(llama_context * context, llama_seq_id seq, size_t * answer, char * message) {
    return guarded(message, [&] { *answer = llama_state_seq_get_size(context, seq); });
}

bool hearth_shim_seq_get(llama_context * context, llama_seq_id seq, uint8_t * data, size_t len, size_t * answer,
                         char * message) {
    return guarded(message, [&] { *answer = llama_state_seq_get_data(context, data, len, seq); });
}

bool hearth_shim_seq_set(llama_context * context, llama_seq_id seq, const uint8_t * data, size_t len, size_t * answer,
                         char * message) {
    return guarded(message, [&] { *answer = llama_state_seq_set_data(context, data, len, seq); });
}

bool hearth_shim_seq_shift(llama_context * context, llama_seq_id seq, llama_pos p0, llama_pos p1, llama_pos delta,
                           char * message) {
    return guarded(message, [&] {
        llama_memory_seq_add(llama_get_memory(context), seq, p0, p1, delta);
        context->memory_update(false);
        llama_synchronize(context);
    });
}

uint64_t hearth_shim_context_bytes(const llama_context * context) {
    uint64_t bytes = 0;
    char message[HEARTH_SHIM_MESSAGE];
    guarded(message, [&] {
        for (const auto & [type, data] : llama_get_memory_breakdown(context)) {
            bytes += data.context + data.compute;
        }
    });
    return bytes;
}

bool hearth_shim_grammar_new(const llama_vocab * vocab, const char * text, const char * root, llama_grammar ** grammar,
                             char * message) {
    return guarded(message, [&] {
        llama_grammar_parser parser(vocab);
        const char *         at = skip_space_and_comments(text);
        while (*at != '\0') {
            at = parser.parse_rule(at);
        }
        for (const auto & [name, id] : parser.symbol_ids) {
            if (id >= parser.rules.size() || parser.rules[id].empty()) {
                throw std::runtime_error("undefined rule `" + name + "`");
            }
        }
        if (parser.symbol_ids.count(root) == 0) {
            throw std::runtime_error("there is no rule `" + std::string(root) + "`");
        }
        *grammar = llama_grammar_init_impl(vocab, text, root, false, nullptr, 0, nullptr, 0);
    });
}

void hearth_shim_grammar_free(llama_grammar * grammar) {
    llama_grammar_free_impl(grammar);
}

bool hearth_shim_grammar_apply(const llama_grammar * grammar, llama_token_data_array * tokens, char * message) {
    return guarded(message, [&] { llama_grammar_apply_impl(*grammar, tokens); });
}

bool hearth_shim_grammar_accept(llama_grammar * grammar, llama_token token, char * message) {
    return guarded(message, [&] { llama_grammar_accept_impl(*grammar, token); });
}

bool hearth_shim_grammar_accept_text(llama_grammar ** grammar, const char * text, size_t text_len, char * message) {
    llama_grammar * next = nullptr;
    const bool      fits = guarded(message, [&] {
        next = llama_grammar_clone_impl(**grammar);
        llama_grammar_accept_str(*next, std::string(text, text_len));
        std::swap(*grammar, next);
    });
    llama_grammar_free_impl(next);
    return fits;
}

void hearth_shim_silence_common(void) {
    // Below LOG_LEVEL_OUTPUT, the lowest level, so nothing passes.
    common_log_set_verbosity_thold(-1);
}
}
