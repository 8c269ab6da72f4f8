//! `ctl chat`: a conversation at a terminal.
//!
//! The loop is read, do, print. The conversation is in [`Conversation`] and sent whole each time, and the daemon's prefix cache
//! makes that cheap; or it is in a session that the daemon keeps, and only what is new is sent. No error ends the chat, except that of the terminal itself.

mod conversation;
mod editor;
mod slash;

use super::Context;
use super::ls::GET_ONE;
use super::run::{answer_once, empty_prompt, piped_stdin};
use super::session as kept;
use crate::answer::{self, Ending, Hurry, request_name};
use crate::args::AnswerArgs;
use crate::error::{CtlError, listed};
use crate::session::Session;
use crate::status_line::{DELAY, StatusLine};
use conversation::Conversation;
use editor::{Editor, Input};
use hearth_protocol::{
    ChatParams, Client, Empty, LoadParams, Message, Method as _, ModelDetails, ModelListMethod,
    ModelLoad, ModelParams, ModelPs, ModelShow, Role, SessionDetails, SessionParams, SessionShow,
    SessionSummary, ToolChoice,
};
use slash::{Command, Settings};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How long a restarting daemon is waited for between two turns.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn run(
    context: &Context,
    model: Option<String>,
    kept: Option<&str>,
    args: &AnswerArgs,
) -> Result<(), CtlError> {
    if std::io::stdin().is_terminal() {
        return interactive(context, model, kept, args);
    }
    let prompt = piped_stdin()?;
    if prompt.trim().is_empty() {
        return Err(empty_prompt());
    }
    let mut session = context.connect()?;
    let kept = open(&mut session, kept, model.as_deref(), args)?;
    let model = model_of(&mut session, kept.as_ref(), model)?;
    let kept = kept.map(|details| details.summary.id);
    let prompt = Message::text(Role::User, prompt);
    answer_once(context, &mut session, kept, model, prompt, args, None)
}

fn open(
    session: &mut Session,
    name: Option<&str>,
    model: Option<&str>,
    args: &AnswerArgs,
) -> Result<Option<SessionDetails>, CtlError> {
    name.map(|name| kept::open(session, name, model, args)).transpose()
}

/// The one that is named, or else the kept session's, or else the only one.
fn model_of(
    session: &mut Session,
    kept: Option<&SessionDetails>,
    named: Option<String>,
) -> Result<String, CtlError> {
    match named.or_else(|| Some(kept?.summary.model.clone())) {
        Some(model) => Ok(model),
        None => only_model(session),
    }
}

pub(super) fn interactive(
    context: &Context,
    model: Option<String>,
    kept: Option<&str>,
    args: &AnswerArgs,
) -> Result<(), CtlError> {
    let out = &context.out;
    if out.is_json() || !out.stdout_is_terminal() {
        return Err(CtlError::usage(
            "a chat needs a terminal on stdout, and no `--json`",
            "`ctl run MODEL PROMPT` prints one answer",
        ));
    }
    let mut session = context.connect()?;
    let kept = open(&mut session, kept, model.as_deref(), args)?;
    let model = model_of(&mut session, kept.as_ref(), model)?;
    let details: ModelDetails = session.ask::<ModelShow>(&ModelParams { model })?;
    out.note(&headline(&details));
    let mut system = args.system.clone();
    if let Some(kept) = &kept {
        let SessionSummary { name, id, messages, .. } = &kept.summary;
        let (name, s) = (name.as_ref().unwrap_or(id), if *messages == 1 { "" } else { "s" });
        out.note(&format!("session `{name}`, {messages} message{s} so far · /history shows them"));
        system.clone_from(&kept.system);
    }
    let mut chat = Chat {
        context,
        session,
        kept: kept.map(|details| details.summary.id),
        conversation: Conversation::new(system),
        settings: Settings { options: args.options(), think: args.think(), verbose: args.verbose },
        args,
        model: details.summary.name,
    };
    chat.warm_up();
    chat.talk()
}

/// The loaded model if there is one, else the one in the store.
pub(super) fn only_model(session: &mut Session) -> Result<String, CtlError> {
    let loaded = session.ask::<ModelPs>(&Empty {})?.models;
    if let [one] = loaded.as_slice() {
        return Ok(one.name.clone());
    }
    let stored = session.ask::<ModelListMethod>(&Empty {})?.models;
    match stored.as_slice() {
        [] => Err(CtlError::failed("no models in the store", GET_ONE)),
        [one] => Ok(one.name.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(|model| model.name.as_str()).collect();
            Err(CtlError::usage(
                format!("which model? The store has {}", listed(&names)),
                format!("name one, such as `{}`", names[0]),
            ))
        }
    }
}

fn headline(details: &ModelDetails) -> String {
    let summary = &details.summary;
    let facts: Vec<&str> = [&summary.family, &summary.parameter_size, &summary.quantization]
        .into_iter()
        .map(String::as_str)
        .filter(|fact| !fact.is_empty())
        .collect();
    format!("{} ({}) · /help lists the commands, Ctrl-D leaves", summary.name, facts.join(" "))
}

struct Chat<'a> {
    context: &'a Context,
    session: Session,
    /// The session that the daemon keeps. Of the conversation there is then only what was not answered.
    kept: Option<String>,
    conversation: Conversation,
    settings: Settings,
    args: &'a AnswerArgs,
    model: String,
}

impl Chat<'_> {
    fn talk(&mut self) -> Result<(), CtlError> {
        let mut editor = Editor::new(&self.context.out);
        loop {
            let text = match editor.read(&self.context.out)? {
                Input::Text(text) => text,
                Input::Nothing => continue,
                Input::Leave => return Ok(()),
            };
            match slash::parse(&text) {
                Ok(Some(Command::Bye)) => return Ok(()),
                Ok(Some(command)) => self.obey(command)?,
                Ok(None) => self.turn(editor::unquote(&text).to_owned())?,
                Err(error) => error.print(&self.context.out),
            }
        }
    }

    /// Loads the model while the person still writes. What goes wrong here goes wrong again with the first question, and is
    /// reported then; the thread ends with the process.
    fn warm_up(&self) {
        let path = self.session.path().to_owned();
        let params = LoadParams {
            model: self.model.clone(),
            draft: None,
            keep_alive: self.args.keep_alive.keep_alive,
            request: None,
        };
        std::thread::spawn(move || {
            if let Ok(mut client) = Client::connect(&path) {
                let _ = client.call_value(ModelLoad::NAME, &params);
            }
        });
    }

    fn obey(&mut self, command: Command) -> Result<(), CtlError> {
        let out = &self.context.out;
        match command {
            Command::Clear | Command::System(_) if self.kept.is_some() => {
                let message = "a session keeps its system text and what was said";
                CtlError::usage(message, "`ctl chat --session NAME` begins another").print(out);
                Ok(())
            }
            Command::Help => out.line(slash::HELP),
            // `talk` has left already.
            Command::Bye => Ok(()),
            Command::Clear => {
                self.conversation.clear();
                out.note("the conversation is forgotten");
                Ok(())
            }
            Command::Retry => match self.conversation.take_last() {
                Some(prompt) => self.turn(prompt),
                None => {
                    out.complain("error", "there is no question yet to ask again");
                    Ok(())
                }
            },
            Command::History => {
                let said = match self.kept.clone() {
                    None => Ok(self.conversation.messages()),
                    Some(session) => self
                        .with_reconnect(|connection| {
                            let params = SessionParams { session: session.clone() };
                            connection.ask::<SessionShow>(&params)
                        })
                        .map(|details| details.said),
                };
                let out = &self.context.out;
                match said {
                    Ok(said) if said.is_empty() => {
                        out.note("nothing was said yet");
                        Ok(())
                    }
                    Ok(said) => said.iter().try_for_each(|said| out.facts(&[kept::line(said)])),
                    Err(error) => {
                        error.print(out);
                        Ok(())
                    }
                }
            }
            Command::Model(None) => out.line(&self.model),
            Command::Model(Some(model)) => {
                self.change_model(model);
                Ok(())
            }
            Command::ShowSystem => match self.conversation.system() {
                Some(text) => out.line(&crate::output::printable(text)),
                None => {
                    out.note("no system text is set; the model's own is used, if it has one");
                    Ok(())
                }
            },
            Command::System(text) => {
                self.conversation.set_system(text);
                Ok(())
            }
            Command::ShowSettings => out.facts(&self.settings.facts()),
            Command::Set(change) => {
                if let Err(error) = self.settings.change(&change) {
                    error.print(out);
                }
                Ok(())
            }
        }
    }

    fn change_model(&mut self, model: String) {
        let found = self.with_reconnect(|session| {
            session.ask::<ModelShow>(&ModelParams { model: model.clone() })
        });
        match found {
            Ok(details) => {
                self.context
                    .out
                    .note(&format!("{}; the conversation goes on", details.summary.name));
                self.model = details.summary.name;
                self.warm_up();
            }
            Err(error) => error.print(&self.context.out),
        }
    }

    /// Only an error of the terminal comes back.
    fn turn(&mut self, prompt: String) -> Result<(), CtlError> {
        let out = &self.context.out;
        let params = ChatParams {
            session: self.kept.clone(),
            model: self.model.clone(),
            messages: match self.kept {
                Some(_) => vec![Message::text(Role::User, &prompt)],
                None => self.conversation.with_question(&prompt),
            },
            template: None,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: None,
            format: None,
            think: self.settings.think,
            think_tokens: None,
            options: self.settings.options.clone(),
            keep_alive: self.args.keep_alive.keep_alive,
            request: Some(request_name()),
            timeout_ms: None,
        };
        let answer = match self
            .with_reconnect(|session| answer::ask(out, session, &params, Hurry::Answer))
        {
            Ok(answer) => answer,
            Err(error @ CtlError::Output(_)) => return Err(error),
            Err(error) => {
                error.print(out);
                self.conversation.lose(prompt);
                return Ok(());
            }
        };
        match answer.ending {
            Ending::Done(reply) => {
                answer::afterword(out, &reply, self.settings.verbose);
                match self.kept {
                    Some(_) => self.conversation.clear(),
                    None => self.conversation.add(prompt, reply.message),
                }
            }
            Ending::Stopped if answer.text.is_empty() => {
                out.note("[stopped before it began; /retry asks again]");
                self.conversation.lose(prompt);
            }
            Ending::Stopped if self.kept.is_some() => {
                out.note("[stopped; the session is as it was before, /retry asks again]");
                self.conversation.lose(prompt);
            }
            Ending::Stopped => {
                out.note("[stopped]");
                self.conversation.add_text(prompt, answer.text);
            }
            Ending::Failed(error) => {
                CtlError::Rpc { error, hint: None }.print(out);
                out.note("[this question is not kept; /retry asks it again]");
                self.conversation.lose(prompt);
            }
            Ending::Broken => {
                CtlError::failed(
                    "the daemon went away in the middle of the answer",
                    "/retry asks again once it is back",
                )
                .print(out);
                self.conversation.lose(prompt);
            }
        }
        Ok(())
    }

    /// Does it, and once more over a new connection if the daemon had gone before it answered anything.
    fn with_reconnect<T>(
        &mut self,
        mut act: impl FnMut(&mut Session) -> Result<T, CtlError>,
    ) -> Result<T, CtlError> {
        if self.session.is_spent() {
            self.session.reconnect()?;
        }
        match act(&mut self.session) {
            Err(CtlError::Disconnected) => {
                self.reconnect()?;
                act(&mut self.session)
            }
            other => other,
        }
    }

    /// A daemon that restarts has no socket for a moment.
    fn reconnect(&mut self) -> Result<(), CtlError> {
        let out = &self.context.out;
        let mut status = StatusLine::start(out, DELAY, "the daemon is away, trying again");
        let deadline = Instant::now() + RECONNECT_PATIENCE;
        loop {
            match self.session.reconnect() {
                Err(CtlError::NoDaemon { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        status.finish();
        out.note("[the daemon was away; connected again]");
        Ok(())
    }
}
