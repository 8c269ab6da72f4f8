// See tools.h.

#include "tools.h"

#include "common/chat-auto-parser.h"
#include "common/json-schema-to-grammar.h"
#include "common/json.h"

#include <algorithm>
#include <string>
#include <vector>

static const char call_start[]   = "<tool_call>";
static const char call_end[]     = "</tool_call>";
static const char result_start[] = "<tool_response>";
static const char result_end[]   = "</tool_response>";

static std::string description_of(const common_chat_templates_inputs & inputs) {
    std::string text = "You can call these functions, given as JSON with a schema of their arguments:\n<tools>\n";
    for (const auto & tool : common_chat_tools_to_json_oaicompat(inputs.tools)) {
        text += tool.at("function").dump() + "\n";
    }
    text += "</tools>\nTo call one, write a JSON object with its name and its arguments, like this:\n";
    text += call_start + std::string("{\"name\": \"the name\", \"arguments\": {}}") + call_end + "\n";
    if (inputs.parallel_tool_calls) {
        text += "To call several, write one such block after the other. ";
    }
    return text + "You are told the results between " + result_start + " and " + result_end + ".";
}

// The conversation for a template that knows no tools: all about them is text.
static std::vector<common_chat_msg> retold(const common_chat_templates_inputs & inputs) {
    std::vector<common_chat_msg> messages;
    common_chat_msg system;
    system.role = "system";
    system.content = description_of(inputs);
    messages.push_back(system);
    bool is_result = false;
    for (common_chat_msg message : inputs.messages) {
        if (messages.size() == 1 && message.role == "system") {
            messages[0].content = message.render_content() + "\n\n" + messages[0].content;
            continue;
        }
        for (const auto & call : message.tool_calls) {
            const std::string name = common_json::make(call.name).dump_safe();
            message.content = message.render_content() + call_start + "{\"name\": " + name + ", \"arguments\": " +
                              (call.arguments.empty() ? "{}" : call.arguments) + "}" + call_end + "\n";
            message.content_parts.clear();
        }
        message.tool_calls.clear();
        const bool follows_result = is_result;
        is_result                 = message.role == "tool";
        if (is_result) {
            const std::string content = result_start + message.render_content() + result_end;
            message                   = common_chat_msg();
            message.role              = "user";
            message.content           = content;
        }
        // Many templates want users and assistants to take turns.
        if (follows_result && message.role == "user") {
            messages.back().content += "\n" + message.render_content();
        } else {
            messages.push_back(message);
        }
    }
    return messages;
}

// Tools for a template that knows none, called as Hermes' models do, from which many others learned.
static common_chat_params offer(const common_chat_templates * templates, const common_chat_templates_inputs & inputs) {
    common_chat_templates_inputs without = inputs;
    without.tools.clear();
    without.messages          = retold(inputs);
    common_chat_params params = common_chat_templates_apply(templates, without);

    // What llama.cpp finds out about the template, reasoning above all, and the form of a call.
    const common_chat_template source(common_chat_templates_source(templates), "", "");
    autoparser::autoparser     form;
    form.analyze_template(source);
    form.jinja_caps.supports_tool_calls = true;
    form.tools.format                   = {};
    form.tools.format.mode              = autoparser::tool_format::JSON_NATIVE;
    (inputs.parallel_tool_calls ? form.tools.format.per_call_start : form.tools.format.section_start) = call_start;
    (inputs.parallel_tool_calls ? form.tools.format.per_call_end : form.tools.format.section_end)     = call_end;

    autoparser::generation_params wanted;
    wanted.tools                  = common_chat_tools_to_json_oaicompat(inputs.tools);
    wanted.tool_choice            = inputs.tool_choice;
    wanted.parallel_tool_calls    = inputs.parallel_tool_calls;
    wanted.reasoning_format       = inputs.reasoning_format;
    const common_peg_arena parser = form.build_parser(wanted, params.generation_prompt);

    params.format       = COMMON_CHAT_FORMAT_PEG_NATIVE;
    params.parser       = parser.save();
    params.grammar_lazy = inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_AUTO;
    params.grammar      = build_grammar([&](const common_grammar_builder & builder) { parser.build_grammar(builder); });
    params.grammar_triggers = { { COMMON_GRAMMAR_TRIGGER_TYPE_WORD, call_start } };
    params.preserved_tokens.insert(params.preserved_tokens.end(), { call_start, call_end });
    return params;
}

// llama.cpp lets the texts in arguments without a schema hold what no JSON text may, such as line breaks.
static void escape_controls(std::string & grammar) {
    static const std::string loose = "\\\"\" ( [^\"\\\\] |", tight = "\\\"\" ( [^\"\\\\\\x00-\\x1F] |";
    for (size_t at = 0; (at = grammar.find(loose, at)) != std::string::npos; at += tight.size()) {
        grammar.replace(at, loose.size(), tight);
    }
}

static bool knows_calls(const common_chat_templates * templates, common_chat_templates_inputs inputs) {
    if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED) {
        return false;
    }
    // Some formats need no grammar before a call is required, as nothing tells where one begins.
    inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    return !common_chat_templates_apply(templates, inputs).grammar.empty();
}

// The grammar's rule for all calls of an answer.
static std::string calls_rule(const common_chat_params & params, bool parallel) {
    std::vector<std::string> names;
    const common_json        source = common_json::parse(params.parser);
    for (const auto & rule : source.at("parsers")) {
        if (rule.value("trigger", false)) {
            names.push_back(rule.at("name").get<std::string>());
        }
    }
    if (names.size() < 2) {
        return names.empty() ? "" : names[0];
    }
    // One is what llama.cpp makes of the other: a section, or as many calls as the model likes, whatever was asked.
    const bool repeats = params.grammar.find("\ntool-calls ::= (tool-call space)+\n") != std::string::npos;
    return repeats && !parallel ? "tool-call" : "tool-calls";
}

// llama.cpp's grammar of a required call lets a model talk before it for as long as it likes, and a small one never ends.
// Here it begins with the call. Answers false if it cannot, because what a call looks like depends on what is before it.
static bool hold_to_calls(common_chat_params & params, bool parallel) {
    static const std::string root = "root ::= ";
    const auto & triggers = params.grammar_triggers;
    const auto is_word = [](const auto & trigger) { return trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD; };
    const std::string rule = calls_rule(params, parallel);
    const size_t      at   = ("\n" + params.grammar).find("\n" + root);
    if (at == std::string::npos || rule.empty() || !std::all_of(triggers.begin(), triggers.end(), is_word)) {
        return params.grammar_lazy;
    }
    params.grammar.replace(at, params.grammar.find('\n', at) - at, root + rule);
    return true;
}

hearth_chat_params hearth_shim_apply(const common_chat_templates * templates, const common_chat_templates_inputs & inputs) {
    hearth_chat_params applied = { common_chat_templates_apply(templates, inputs), false };
    if (inputs.tools.empty()) {
        return applied;
    }
    if (applied.params.grammar.empty() && !knows_calls(templates, inputs)) {
        applied.params = offer(templates, inputs);
    }
    if (!applied.params.grammar.empty()) {
        escape_controls(applied.params.grammar);
        applied.grammar_is_answer = hold_to_calls(applied.params, inputs.parallel_tool_calls);
    }
    return applied;
}
