// llama.cpp's common/chat behind a C line: JSON in, JSON out, as hearth.chat/1 of hearth_plugin.h describes.
//
// llama.cpp has no C interface to it. One handle per model holds compiled templates and loaded parsers, so that
// rendering compiles a template once and streaming does not reload a parser for every token. All functions may be
// called from several threads at once. Mirrored by hand in src/shim.rs.
#pragma once

#include "engine.h"

extern "C" {

struct hearth_shim_chat;

// The model must outlive the handle. Compiles nothing yet, so it cannot fail but for memory (then null).
hearth_shim_chat * hearth_shim_chat_new(const llama_model * model);
void hearth_shim_chat_free(hearth_shim_chat * chat);

// On true `*answer` has `*answer_len` bytes, to be given back with hearth_shim_bytes_free. On false `message` may quote the
// request, so it must not be logged.
bool hearth_shim_chat_render(hearth_shim_chat * chat, const char * request, size_t request_len, char ** answer,
                             size_t * answer_len, char * message);
bool hearth_shim_chat_parse(hearth_shim_chat * chat, const char * parser, size_t parser_len, const char * text,
                            size_t text_len, bool partial, char ** answer, size_t * answer_len, char * message);
void hearth_shim_bytes_free(char * bytes);
}
