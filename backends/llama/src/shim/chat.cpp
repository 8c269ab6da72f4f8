// See chat.h. `common/chat.h` is llama.cpp's; this file only moves its structs into JSON and back.

#include "common/chat.h"

#include "chat.h"
#include "common/chat-peg-parser.h"
#include "common/common.h"
#include "common/json-schema-to-grammar.h"
#include "common/json.h"
#include "tools.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using templates_ptr = std::shared_ptr<common_chat_templates>;

// What it takes to read an answer.
struct reader {
    common_chat_parser_params params;
    std::vector<std::string>  think_ends;
};

using reader_ptr = std::shared_ptr<const reader>;

// The entries last used, by their source text. Entries stay alive for whoever still holds the pointer.
template <typename Value> class recent {
  public:
    template <typename Make> Value get(const std::string & key, Make make) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            for (auto it = entries.begin(); it != entries.end(); ++it) {
                if (it->first == key) {
                    entries.splice(entries.begin(), entries, it);
                    return entries.front().second;
                }
            }
        }
        Value value = make();
        std::lock_guard<std::mutex> lock(mutex);
        entries.emplace_front(key, value);
        if (entries.size() > max_entries) {
            entries.pop_back();
        }
        return value;
    }

  private:
    // A stream in flight needs one parser; more streams than this reload theirs, which costs time and nothing else.
    static constexpr size_t max_entries = 64;

    std::mutex                               mutex;
    std::list<std::pair<std::string, Value>> entries;
};

struct hearth_shim_chat {
    const llama_model *   model;
    recent<templates_ptr> templates;
    recent<reader_ptr>    readers;
};

static templates_ptr templates_for(hearth_shim_chat * chat, const std::string & source) {
    return chat->templates.get(source, [&] {
        if (!source.empty()) {
            // Parsed once more on its own, because common_chat_templates_init slices the exception and so loses its text.
            common_chat_template(source, "", "");
        }
        return templates_ptr(common_chat_templates_init(chat->model, source).release(), common_chat_templates_deleter());
    });
}

static reader_ptr reader_for(hearth_shim_chat * chat, const std::string & text) {
    return chat->readers.get(text, [&] {
        const common_json source         = common_json::parse(text);
        auto              made           = std::make_shared<reader>();
        made->params.format              = static_cast<common_chat_format>(source.at("format").get<int>());
        made->params.generation_prompt   = source.at("generation_prompt").get<std::string>();
        made->params.reasoning_format    = COMMON_REASONING_FORMAT_DEEPSEEK;
        made->think_ends                 = source.at("think_ends").get<std::vector<std::string>>();
        const std::string parser         = source.at("parser").get<std::string>();
        if (!parser.empty()) {
            made->params.parser.load(parser);
        }
        return reader_ptr(made);
    });
}

static common_chat_templates_inputs inputs_from(const common_chat_templates * templates, const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages            = common_chat_msgs_parse_oaicompat(request.at("messages"));
    inputs.tools               = common_chat_tools_parse_oaicompat(request.value("tools", common_json()));
    inputs.tool_choice         = common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", "auto"));
    inputs.enable_thinking     = request.value("thinking", true);
    inputs.reasoning_format    = COMMON_REASONING_FORMAT_DEEPSEEK;
    const common_json parallel = request.value("parallel_tool_calls", common_json());
    inputs.parallel_tool_calls = parallel.is_boolean() ? parallel.get<bool>()
                                                       : common_chat_templates_get_caps(templates)["supports_parallel_tool_calls"];
    const common_json schema   = request.value("json_schema", common_json());
    if (!schema.is_null()) {
        inputs.json_schema = schema.dump();
    }
    const common_json args = request.value("template_args", common_json());
    if (args.is_object()) {
        for (const auto & [name, value] : args.items()) {
            inputs.chat_template_kwargs[name] = value.dump();
        }
    }
    return inputs;
}

// llama.cpp takes the BOS text away where its callers tokenize with `add_special`; ours do not.
static std::string with_bos(const llama_vocab * vocab, std::string prompt) {
    const llama_token bos = llama_vocab_bos(vocab);
    if (bos == LLAMA_TOKEN_NULL || !llama_vocab_get_add_bos(vocab)) {
        return prompt;
    }
    const std::string text = common_token_to_piece(vocab, bos, true);
    return prompt.compare(0, text.size(), text) == 0 ? prompt : text + prompt;
}

// Words are looked for in the text. Where one is a control token, the answer spells it, as `preserved` says.
static common_json trigger_json(const common_grammar_trigger & trigger) {
    switch (trigger.type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:
            return common_json::object({ { "type", "pattern" }, { "value", trigger.value } });
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL:
            return common_json::object({ { "type", "pattern" }, { "value", "^(?:" + trigger.value + ")$" } });
        default:
            return common_json::object({ { "type", "word" }, { "value", trigger.value } });
    }
}

// True if the parser hands every text on as content, tried on one that has a little of every markup.
static bool is_plain(const common_chat_parser_params & params) {
    static const std::string probe =
        "\n {\"name\": \"f\", \"arguments\": {}} <think>a</think> [THINK]b[/THINK] <|channel|>final<|message|>c >>>all\nd "
        "<tool_call>{}</tool_call> [TOOL_CALLS][] <|tool_call|> e \n";
    try {
        for (const bool partial : { true, false }) {
            for (const std::string & text : { probe, probe.substr(2), ">>>all\n" + probe, "<|channel|>x" + probe }) {
                const common_chat_msg message = common_chat_parse(text, partial, params);
                if (message.content != text || !message.reasoning_content.empty() || !message.tool_calls.empty()) {
                    return false;
                }
            }
        }
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

// Some templates begin the reasoning themselves, and others begin and end it when none is wanted.
static bool ends_inside(const std::string & prompt, const std::string & start, const std::vector<std::string> & ends) {
    const size_t begun = start.empty() ? std::string::npos : prompt.rfind(start);
    return begun != std::string::npos && std::none_of(ends.begin(), ends.end(), [&](const std::string & end) {
        return prompt.find(end, begun) != std::string::npos;
    });
}

static std::string render(hearth_shim_chat * chat, const std::string & text) {
    const common_json        request   = common_json::parse(text);
    const templates_ptr      templates = templates_for(chat, request.value("template", ""));
    const auto               inputs    = inputs_from(templates.get(), request);
    const llama_vocab *      vocab     = llama_model_get_vocab(chat->model);
    const hearth_chat_params applied   = hearth_shim_apply(templates.get(), inputs);
    const common_chat_params & params  = applied.params;

    const std::string parser = common_json::object({
                                   { "format", static_cast<int>(params.format) },
                                   { "generation_prompt", params.generation_prompt },
                                   { "parser", params.parser },
                                   { "think_ends", params.thinking_end_tags },
                               }).dump_safe();
    const bool  grammar_is_whole = !params.grammar.empty() && !applied.grammar_is_answer;
    std::string grammar          = params.grammar;
    if (grammar.empty() && !inputs.json_schema.empty()) {
        grammar = json_schema_to_grammar(common_json::parse(inputs.json_schema), true);
    }
    common_json triggers = common_json::array();
    for (const auto & trigger : params.grammar_triggers) {
        // Nothing but Functionary's looks ahead; its calls are read, and not held to anything.
        if (trigger.value.find("(?!") == std::string::npos) {
            triggers.push_back(trigger_json(trigger));
        }
    }
    const bool plain = inputs.tools.empty() && !params.supports_thinking && is_plain(reader_for(chat, parser)->params);
    const bool thinks  = params.supports_thinking && inputs.enable_thinking && !params.thinking_end_tags.empty();
    const bool is_open = ends_inside(params.prompt, params.thinking_start_tag, params.thinking_end_tags);
    return common_json::object({
               { "prompt", with_bos(vocab, params.prompt) },
               { "stops", params.additional_stops },
               { "plain", plain },
               { "parser", parser },
               { "grammar", grammar },
               { "grammar_prefix", grammar_is_whole ? params.generation_prompt : "" },
               { "grammar_thinks", grammar_is_whole },
               { "grammar_lazy", params.grammar_lazy },
               { "triggers", triggers },
               { "preserved", params.preserved_tokens },
               { "thinks", thinks },
               { "think_start", is_open ? "" : params.thinking_start_tag },
               { "think_ends", params.thinking_end_tags },
           }).dump_safe();
}

static bool is_object(const std::string & arguments) {
    try {
        return common_json::parse(arguments).is_object();
    } catch (const std::exception &) {
        return false;
    }
}

// Reads an answer that is over. What is no whole part of it, because it was cut off, is content, or reasoning if that was cut.
static common_chat_msg read_whole(const std::string & text, const reader & from) {
    common_chat_msg          message = common_chat_parse(text, false, from.params);
    const std::string        input   = from.params.generation_prompt + text;
    common_peg_parse_context strict(input);
    if (from.params.parser.empty() || from.params.parser.parse(strict).success()) {
        return message;
    }
    common_peg_parse_context ctx(input, COMMON_PEG_PARSE_FLAG_LENIENT);
    size_t                   end = from.params.generation_prompt.size();
    size_t                   n_calls = 0;
    std::string *            open    = nullptr;
    ctx.ast.visit(from.params.parser.parse(ctx), [&](const common_peg_ast_node & node) {
        const bool is_reasoning = node.tag == common_chat_peg_builder::REASONING;
        if (is_reasoning || node.tag == common_chat_peg_builder::CONTENT) {
            end  = std::max(end, node.end);
            open = is_reasoning && node.is_partial ? &message.reasoning_content : nullptr;
        } else if (node.tag == common_chat_peg_builder::TOOL && !node.is_partial) {
            end = std::max(end, node.end);
            ++n_calls;
        }
    });
    message.tool_calls.resize(std::min(n_calls, message.tool_calls.size()));
    if (open == nullptr && message.content.empty() && message.tool_calls.empty()) {
        for (const std::string & tag : from.think_ends) {
            const size_t at = input.find_first_not_of(" \t\r\n", end);
            end = at != std::string::npos && input.compare(at, tag.size(), tag) == 0 ? at + tag.size() : end;
        }
    }
    (open == nullptr ? message.content : *open) += input.substr(end);
    return message;
}

static std::string parse(hearth_shim_chat * chat, const std::string & parser, const std::string & text, bool partial) {
    const reader_ptr from = reader_for(chat, parser);
    common_chat_msg  message;
    try {
        message = partial ? common_chat_parse(text, true, from->params) : read_whole(text, *from);
        for (const auto & call : message.tool_calls) {
            if (!partial && !is_object(call.arguments)) {
                throw std::runtime_error("the arguments are no JSON object");
            }
        }
    } catch (const std::exception &) {
        // What cannot be read as the model's format is content: no text is ever lost.
        message         = common_chat_msg();
        message.content = text;
    }
    common_json calls = common_json::array();
    for (const auto & call : message.tool_calls) {
        calls.push_back({ { "id", call.id }, { "name", call.name }, { "arguments", call.arguments } });
    }
    return common_json::object({
               { "content", message.content },
               { "reasoning", message.reasoning_content },
               { "tool_calls", calls },
           }).dump_safe();
}

template <typename Body> static bool answered(char ** answer, size_t * answer_len, char * message, Body body) noexcept {
    try {
        const std::string text  = body();
        char *            bytes = static_cast<char *>(std::malloc(text.size() + 1));
        if (bytes == nullptr) {
            throw std::bad_alloc();
        }
        std::memcpy(bytes, text.data(), text.size());
        *answer     = bytes;
        *answer_len = text.size();
        return true;
    } catch (const std::exception & error) {
        // A template's own words stand behind a trace of the interpreter.
        static const char own_words[] = "Jinja Exception: ";
        const char *      words       = std::strstr(error.what(), own_words);
        hearth_shim_write_message(message, words == nullptr ? error.what() : words + sizeof(own_words) - 1);
    } catch (...) {
        hearth_shim_write_message(message, "unknown exception");
    }
    return false;
}

extern "C" {

hearth_shim_chat * hearth_shim_chat_new(const llama_model * model) {
    auto * chat = new (std::nothrow) hearth_shim_chat;
    if (chat != nullptr) {
        chat->model = model;
    }
    return chat;
}

void hearth_shim_chat_free(hearth_shim_chat * chat) {
    delete chat;
}

bool hearth_shim_chat_render(hearth_shim_chat * chat, const char * request, size_t request_len, char ** answer,
                             size_t * answer_len, char * message) {
    return answered(answer, answer_len, message, [&] { return render(chat, std::string(request, request_len)); });
}

bool hearth_shim_chat_parse(hearth_shim_chat * chat, const char * parser, size_t parser_len, const char * text,
                            size_t text_len, bool partial, char ** answer, size_t * answer_len, char * message) {
    return answered(answer, answer_len, message, [&] {
        return parse(chat, std::string(parser, parser_len), std::string(text, text_len), partial);
    });
}

void hearth_shim_bytes_free(char * bytes) {
    std::free(bytes);
}
}
