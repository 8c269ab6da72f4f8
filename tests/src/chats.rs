//! Requests for models and what comes back.

use hearth_protocol::{
    ChatParams, ChatReply, ChatSend, Client, ClientError, EmbedInput, EmbedParams, ErrorKind,
    Event, Generate, GenerateParams, GenerateReply, Message, Options, Role, RpcError, StreamMethod,
    ToolChoice,
};

/// A question, answered greedily, without thinking.
pub fn chat(model: &str, text: &str) -> ChatParams {
    ChatParams {
        session: None,
        model: model.into(),
        messages: vec![message(Role::User, text)],
        template: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: None,
        format: None,
        think: Some(false),
        think_tokens: None,
        options: greedy(),
        keep_alive: None,
        request: None,
        timeout_ms: None,
    }
}

/// A text to continue, greedily.
pub fn generate(model: &str, prompt: &str) -> GenerateParams {
    GenerateParams {
        model: model.into(),
        prompt: prompt.into(),
        images: Vec::new(),
        suffix: None,
        raw: false,
        format: None,
        options: greedy(),
        keep_alive: None,
        request: None,
        timeout_ms: None,
    }
}

/// Texts to embed.
pub fn embed(model: &str, input: EmbedInput) -> EmbedParams {
    EmbedParams { model: model.into(), input, normalize: true, truncate: false, keep_alive: None }
}

/// A message that is only text.
pub fn message(role: Role, text: &str) -> Message {
    Message::text(role, text)
}

fn greedy() -> Options {
    Options { temperature: Some(0.0), ..Options::default() }
}

/// The daemon's error, where there must be one.
#[track_caller]
pub fn error_of<T: std::fmt::Debug>(result: Result<T, ClientError>) -> RpcError {
    match result {
        Err(ClientError::Rpc(error)) => error,
        other => panic!("an error of the daemon's was expected, and this came: {other:?}"),
    }
}

/// The same, of a certain kind, with a hint.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, kind: ErrorKind) -> RpcError {
    let error = error_of(result);
    assert_eq!(error.kind(), Some(kind), "{error:?}");
    assert_eq!(error.code, kind.code());
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "no hint: {error:?}");
    error
}

/// A stream from its first event to its end.
#[derive(Debug)]
pub struct Told<R> {
    /// Every event, the terminal one included.
    pub events: Vec<Event<R>>,
    /// All deltas of the first answer.
    pub text: String,
    /// All reasoning of the first answer.
    pub reasoning: String,
}

impl<R: Clone + std::fmt::Debug> Told<R> {
    /// The reply of a stream that must have ended well.
    #[track_caller]
    pub fn reply(&self) -> R {
        match self.events.last() {
            Some(Event::Done { reply }) => reply.clone(),
            Some(Event::Error { error }) => panic!("the stream ended with an error: {error:?}"),
            other => panic!("the stream ended with {other:?}"),
        }
    }

    /// The error of a stream that must have ended so.
    #[track_caller]
    pub fn error(&self) -> RpcError {
        match self.events.last() {
            Some(Event::Error { error }) => error.clone(),
            other => panic!("the stream ended with {other:?}"),
        }
    }
}

/// A chat's whole stream.
#[track_caller]
pub fn follow(client: &mut Client, params: &ChatParams) -> Told<ChatReply> {
    collect::<ChatSend, _>(client, params)
}

/// A completion's whole stream.
#[track_caller]
pub fn follow_generate(client: &mut Client, params: &GenerateParams) -> Told<GenerateReply> {
    collect::<Generate, _>(client, params)
}

#[track_caller]
fn collect<M, R>(client: &mut Client, params: &M::Params) -> Told<R>
where
    M: StreamMethod<Event = Event<R>>,
{
    let mut stream = client.stream::<M>(params).unwrap();
    let mut told = Told { events: Vec::new(), text: String::new(), reasoning: String::new() };
    while let Some(event) = stream.next_event().unwrap() {
        match &event {
            Event::Delta { candidate: 0, text, .. } => told.text.push_str(text),
            Event::Reasoning { candidate: 0, text, .. } => told.reasoning.push_str(text),
            _ => {}
        }
        told.events.push(event);
    }
    assert!(matches!(told.events.first(), Some(Event::Accepted { .. })), "{:?}", told.events);
    let n_terminal = told.events.iter().filter(|event| event.is_terminal()).count();
    assert_eq!(n_terminal, 1, "{:?}", told.events);
    told
}
