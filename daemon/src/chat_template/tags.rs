//! What a template says of the form of answers: the texts that it puts around thoughts and before tool calls.
//!
//! These are Ollama's guesses, and templates are written for them.

use hearth_gotemplate::node::{ArgKind, Branch, Node, Pipe};

/// The texts before and after `.Thinking` in the loop over `.Messages`.
pub(super) fn around_thoughts(nodes: &[Node]) -> Option<(String, String)> {
    let mut found = Thoughts::default();
    found.visit(nodes, false);
    (!found.before.is_empty() && !found.after.is_empty()).then_some((found.before, found.after))
}

#[derive(Default)]
struct Thoughts {
    before: String,
    after: String,
}

impl Thoughts {
    fn visit(&mut self, nodes: &[Node], in_messages: bool) {
        for node in nodes {
            match node {
                Node::Action(pipe) | Node::Template { pipe: Some(pipe), .. } => {
                    self.look(pipe, nodes, in_messages);
                }
                Node::If(branch) | Node::With(branch) => self.branch(branch, nodes, in_messages),
                Node::Range(branch) => {
                    self.branch(branch, nodes, has_field(&branch.pipe, "Messages"));
                }
                _ => {}
            }
        }
    }

    fn branch(&mut self, branch: &Branch, around: &[Node], in_messages: bool) {
        self.look(&branch.pipe, around, in_messages);
        self.visit(&branch.body, in_messages);
        self.visit(branch.otherwise.as_deref().unwrap_or_default(), in_messages);
    }

    /// Takes the first and the last text around a pipeline that uses the thoughts. What comes later is nearer to them.
    fn look(&mut self, pipe: &Pipe, around: &[Node], in_messages: bool) {
        if !in_messages || !has_field(pipe, "Thinking") {
            return;
        }
        if let Some(Node::Text(text)) = around.first() {
            self.before = text.trim().to_string();
        }
        if let Some(Node::Text(text)) = around.last() {
            self.after = text.trim().to_string();
        }
    }
}

fn has_field(pipe: &Pipe, name: &str) -> bool {
    pipe.args().any(|arg| match &arg.kind {
        ArgKind::Field(names) => names.first().is_some_and(|first| **first == *name),
        ArgKind::Pipe(pipe) => has_field(pipe, name),
        _ => false,
    })
}

/// The first text in the first `if .ToolCalls`, up to a brace or the bracket of a list; without one, a brace.
pub(super) fn before_calls(nodes: &[Node]) -> String {
    let text = if_calls(nodes).and_then(|branch| first_text(&branch.body)).unwrap_or_default();
    let tag = text.trim().split('{').next().unwrap_or_default().trim_end();
    match tag.strip_suffix('[').map_or(tag, str::trim_end) {
        "" if tag.is_empty() => "{".into(),
        "" => tag.into(),
        tag => tag.into(),
    }
}

fn if_calls(nodes: &[Node]) -> Option<&Branch> {
    nodes.iter().find_map(|node| match node {
        Node::If(branch) if uses_calls(&branch.pipe) => Some(branch),
        Node::If(branch) | Node::With(branch) | Node::Range(branch) => if_calls(&branch.body)
            .or_else(|| if_calls(branch.otherwise.as_deref().unwrap_or_default())),
        _ => None,
    })
}

fn uses_calls(pipe: &Pipe) -> bool {
    pipe.args().any(|arg| match &arg.kind {
        ArgKind::Field(names) => names.iter().any(|name| **name == *"ToolCalls"),
        _ => false,
    })
}

/// The first text, unless something is printed before it.
fn first_text(nodes: &[Node]) -> Option<&str> {
    for node in nodes {
        match node {
            Node::Text(text) => return Some(text),
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
                return first_text(&branch.body)
                    .or_else(|| first_text(branch.otherwise.as_deref().unwrap_or_default()));
            }
            Node::Action(_) => return None,
            _ => {}
        }
    }
    None
}
