//! Required calls of a model that thinks, or may: the default model's weights with a template that opens thoughts, or leaves that
//! to the model.

use super::limited;
use super::tools::{one_call, tools};
use hearth_protocol::{Tokenize, TokenizeParams, ToolChoice};
use hearth_tests::{TestDaemon, env_path, follow};

const TEMPLATE: &str = r"{% for m in messages %}{{'<|im_start|>'+m.role+'\n'}}{% if m.reasoning_content %}{{'<think>\n'+m.reasoning_content+'\n</think>\n\n'}}{% endif %}{{m.content+'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\nOPENED'}}{% if enable_thinking is defined and not enable_thinking %}{{'NONE</think>\n\n'}}{% endif %}{% endif %}";

/// The model's file with another template, which has to be as long.
fn with_template(template: &str) -> Vec<u8> {
    let mut file = std::fs::read(env_path("HEARTH_TEST_SMOLLM2")).unwrap();
    let key = b"tokenizer.chat_template";
    let found = file.windows(key.len()).position(|part| part == key).unwrap();
    // Behind the key its type, and the text's length.
    let at = found + key.len() + 4;
    let len = u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let len = usize::try_from(len).unwrap();
    let blanks = " ".repeat(len - template.len());
    let padded = template.replacen("{% for", &format!("{{%{blanks} for"), 1);
    file[at + 8..at + 8 + len].copy_from_slice(padded.as_bytes());
    file
}

#[test]
fn a_required_call_is_one_and_nothing_else_also_behind_thoughts() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS")).start();
    for (model, opened, none) in [("opened", r"<think>\n", r"\n"), ("own", "", r"<think>\n\n")] {
        let template = TEMPLATE.replace("OPENED", opened).replace("NONE", none);
        let file = folder.path().join(model);
        std::fs::write(&file, with_template(&template)).unwrap();
        daemon.ctl(["import", file.to_str().unwrap(), model, "--link"]).ok();
        let tokens = TokenizeParams {
            model: model.into(),
            text: "<".into(),
            add_special: false,
            parse_special: false,
            pieces: false,
        };
        let sign = daemon.client().call::<Tokenize>(&tokens).unwrap().tokens[0];
        for (think, think_tokens) in [(None, Some(9)), (Some(true), Some(40)), (Some(false), None)]
        {
            // With it, what is written first may begin thoughts as well as a call.
            for bias in [0.0, 100.0] {
                let mut params = limited("What is the weather in Paris?", 400);
                params.model = model.into();
                params.tools = tools();
                params.tool_choice = ToolChoice::Tool("get_weather".into());
                params.parallel_tool_calls = Some(false);
                (params.think, params.think_tokens) = (think, think_tokens);
                params.options.logit_bias = [(sign, bias)].into();
                let told = follow(&mut daemon.client(), &params);
                let (call, arguments) = one_call(&told);
                assert_eq!(call.name, "get_weather");
                let keys: Vec<_> = arguments.as_object().unwrap().keys().collect();
                assert_eq!(keys, ["unit", "city", "days"]);
                let thinks = model == "opened" && think != Some(false);
                assert_eq!(told.reasoning.is_empty(), !thinks, "{:?}", told.reasoning);
            }
        }
    }
}
