//! `ctl session`: conversations that the daemon keeps; and what `ctl chat --session` begins or goes on with.

use super::Context;
use super::chat::only_model;
use super::rm::each;
use crate::args::{AnswerArgs, SessionCommand};
use crate::error::CtlError;
use crate::format::ago;
use crate::session::Session;
use hearth_protocol::{
    Empty, ErrorKind, Message, Role, SessionCreate, SessionCreateParams, SessionDelete,
    SessionDetails, SessionList, SessionListMethod, SessionParams, SessionRename,
    SessionRenameParams, SessionShow, SessionSummary,
};

pub(super) fn run(context: &Context, command: Option<SessionCommand>) -> Result<(), CtlError> {
    match command.unwrap_or(SessionCommand::Ls) {
        SessionCommand::Ls => list(context),
        SessionCommand::Show { session } => show(context, session),
        SessionCommand::Rename { session, name } => rename(context, session, name),
        SessionCommand::Rm { sessions } => each(context, sessions, remove),
    }
}

fn list(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<SessionListMethod>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let list: SessionList = session.read(reply)?;
    if list.sessions.is_empty() {
        context.out.note("no sessions");
        context.out.complain("hint", "`ctl chat --session NAME` begins one");
        return Ok(());
    }
    let row = |session: &SessionSummary| {
        [
            session.name.clone().unwrap_or_default(),
            session.id.clone(),
            session.model.clone(),
            session.messages.to_string(),
            ago(session.updated_s),
        ]
    };
    let rows: Vec<_> = list.sessions.iter().map(row).collect();
    context.out.table(["NAME", "ID", "MODEL", "MESSAGES", "USED"], &rows)
}

fn show(context: &Context, session: String) -> Result<(), CtlError> {
    let mut connection = context.connect()?;
    let reply = connection.call::<SessionShow>(&SessionParams { session })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let SessionDetails { summary, system, said, .. } = connection.read(reply)?;
    let mut facts = vec![
        ("name", summary.name.unwrap_or_default()),
        ("id", summary.id),
        ("model", summary.model),
        ("created", ago(summary.created_s)),
        ("used", ago(summary.updated_s)),
        ("system", system.unwrap_or_default()),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    context.out.facts(&facts)?;
    said.iter().try_for_each(|message| context.out.facts(&[line(message)]))
}

/// Who said it, and what.
pub(super) fn line(message: &Message) -> (&'static str, String) {
    let who = match message.role {
        Role::System => "system",
        Role::User => "you",
        Role::Assistant => "model",
        Role::Tool => "tool",
    };
    let calls = message.tool_calls.iter();
    let calls = calls.map(|call| format!("[calls `{}` with {}]", call.name, call.arguments));
    let parts = std::iter::once(message.content.clone()).chain(calls);
    (who, parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
}

fn rename(context: &Context, session: String, name: String) -> Result<(), CtlError> {
    let mut connection = context.connect()?;
    let params = SessionRenameParams { session, name };
    let reply = connection.call::<SessionRename>(&params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let SessionRenameParams { session, name } = params;
    context.out.line(&format!("`{session}` is called `{name}` from now on"))
}

fn remove(context: &Context, connection: &mut Session, session: String) -> Result<(), CtlError> {
    let params = SessionParams { session };
    let reply = connection.call::<SessionDelete>(&params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let SessionSummary { messages, .. } = connection.read(reply)?;
    let s = if messages == 1 { "" } else { "s" };
    context.out.line(&format!("`{}` is removed, with {messages} message{s}", params.session))
}

/// The session of this name, which is made if there is none.
pub(super) fn open(
    connection: &mut Session,
    name: &str,
    model: Option<&str>,
    args: &AnswerArgs,
) -> Result<SessionDetails, CtlError> {
    let params = SessionParams { session: name.into() };
    match connection.ask::<SessionShow>(&params) {
        Ok(details) if args.system.is_some() && args.system != details.system => {
            Err(CtlError::usage(
                format!("the session `{name}` has another system text"),
                "leave out `--system`, or begin a session of another name",
            ))
        }
        Err(CtlError::Rpc { error, .. })
            if error.kind() == Some(ErrorKind::SessionNotFound) && !name.starts_with("sess_") =>
        {
            let model = match model {
                Some(model) => model.into(),
                None => only_model(connection)?,
            };
            connection.ask::<SessionCreate>(&SessionCreateParams {
                name: Some(name.into()),
                model,
                system: args.system.clone(),
                options: args.options(),
            })?;
            connection.ask::<SessionShow>(&params)
        }
        shown => shown,
    }
}
