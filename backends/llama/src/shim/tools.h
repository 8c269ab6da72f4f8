// Templates applied to requests with tools, so that every model can call them. On top of llama.cpp's common/chat.
#pragma once

#include "common/chat.h"

struct hearth_chat_params {
    common_chat_params params;
    // The grammar is of the answer alone. Otherwise it begins with the end of the prompt, and knows the reasoning.
    bool grammar_is_answer;
};

hearth_chat_params hearth_shim_apply(const common_chat_templates * templates, const common_chat_templates_inputs & inputs);
