//! `ctl run MODEL [PROMPT...]`: one answer on stdout.
//!
//! The prompt is the words of the command line, then an empty line, then stdin where that is no terminal.

use super::{Context, chat};
use crate::answer::{self, Ending, Hurry, request_name};
use crate::args::AnswerArgs;
use crate::error::CtlError;
use crate::session::Session;
use hearth_protocol::{ChatParams, Message, Options, Role, ToolChoice};
use std::io::{IsTerminal as _, Read as _};

pub(super) fn run(
    context: &Context,
    model: String,
    prompt: &[String],
    args: &AnswerArgs,
    candidates: Option<u32>,
) -> Result<(), CtlError> {
    // Before connecting, since whoever writes to stdin may take its time.
    match assemble(prompt.join(" "), piped_stdin()?) {
        Some(prompt) => {
            let session = &mut context.connect()?;
            answer_once(context, session, None, model, prompt, args, candidates)
        }
        None if std::io::stdin().is_terminal() => {
            chat::interactive(context, Some(model), None, args)
        }
        None => Err(empty_prompt()),
    }
}

/// One question, one answer, and its ending as the command's own.
pub(super) fn answer_once(
    context: &Context,
    session: &mut Session,
    kept: Option<String>,
    model: String,
    prompt: String,
    args: &AnswerArgs,
    candidates: Option<u32>,
) -> Result<(), CtlError> {
    // A session has its own.
    let system = args.system.as_ref().filter(|_| kept.is_none());
    let system = system.map(|text| Message::text(Role::System, text));
    let params = ChatParams {
        session: kept,
        model,
        messages: system.into_iter().chain([Message::text(Role::User, prompt)]).collect(),
        template: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: None,
        format: None,
        think: args.think(),
        think_tokens: None,
        options: Options { candidates, ..args.options() },
        keep_alive: args.keep_alive.keep_alive,
        request: Some(request_name()),
        timeout_ms: None,
    };
    match answer::ask(&context.out, session, &params, Hurry::End)?.ending {
        Ending::Done(reply) => {
            if !context.out.is_json() {
                for other in &reply.others {
                    context.out.line("---")?;
                    context.out.line(&context.out.shown(&other.message.content))?;
                }
                answer::afterword(&context.out, &reply, args.verbose);
            }
            Ok(())
        }
        Ending::Stopped => Err(CtlError::Interrupted),
        // With `--json` the error is on stdout already, as the last event.
        Ending::Failed(error) if context.out.is_json() => {
            Err(CtlError::Failed { hint: error.hint().map(str::to_owned), message: error.message })
        }
        Ending::Failed(error) => Err(CtlError::Rpc { error, hint: None }),
        Ending::Broken => Err(CtlError::failed(
            "the daemon went away in the middle of the answer",
            "it was stopped or it crashed; its log says which",
        )),
    }
}

/// All of stdin where it is no terminal, without the end of its last line.
pub(super) fn piped_stdin() -> Result<String, CtlError> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|error| {
        CtlError::usage(format!("cannot read stdin: {error}"), "give it text, or `< /dev/null`")
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CtlError::usage(
            format!("stdin is not UTF-8 text, byte {} is the first that is not", at + 1),
            "convert it first, such as with `iconv -t UTF-8`",
        )
    })?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

pub(super) fn empty_prompt() -> CtlError {
    CtlError::usage("the prompt is empty", "`ctl run MODEL PROMPT`, or write the prompt to stdin")
}

fn assemble(prompt: String, stdin: String) -> Option<String> {
    match (prompt.trim().is_empty(), stdin.trim().is_empty()) {
        (true, true) => None,
        (false, true) => Some(prompt),
        (true, false) => Some(stdin),
        (false, false) => Some(format!("{prompt}\n\n{stdin}")),
    }
}
