//! A parsed template: rendering it, asking what it uses, and cutting it.

use crate::node::{Arg, ArgKind, Branch, Command, Node, Pipe};
use crate::parse::{Parsed, parse};
use crate::{Functions, TemplateError, Value, exec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A template that can be rendered any number of times.
#[derive(Debug, Clone)]
pub struct Template {
    parsed: Parsed,
    functions: Functions,
}

impl Template {
    /// Reads a template. Functions of other names than these and Go's own are errors.
    pub fn parse(source: &str, functions: &Functions) -> Result<Self, TemplateError> {
        Ok(Self { parsed: parse(source, functions)?, functions: functions.clone() })
    }

    /// What the template makes of this data, which is its `.` and its `$`.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        exec::render(&self.parsed.root, &self.parsed.defined, &self.functions, data)
    }

    /// The outermost nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.parsed.root
    }

    /// Names of all fields and variables that it uses, in templates it defines too. Fields of what parentheses or
    /// functions answer are not among them.
    pub fn identifiers(&self) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        for nodes in std::iter::once(&self.parsed.root).chain(self.parsed.defined.values()) {
            identifiers(nodes, &mut names);
        }
        names
    }

    /// Adds `{{ .name }}` at its end.
    pub fn append_field(&mut self, name: &str) {
        let arg = Arg { line: 1, kind: ArgKind::Field(vec![name.into()]) };
        self.parsed.root.push(Node::Action(Pipe {
            line: 1,
            variables: Vec::new(),
            assigns: false,
            commands: vec![Command { args: vec![arg] }],
        }));
    }

    /// The template up to where it prints the field, and nothing after that. Templates it defines stay whole.
    #[must_use]
    pub fn up_to_field(&self, name: &str) -> Self {
        let mut cut = self.clone();
        cut_nodes(&mut cut.parsed.root, name);
        cut
    }
}

fn identifiers(nodes: &[Node], names: &mut BTreeSet<Arc<str>>) {
    for node in nodes {
        match node {
            Node::Action(pipe) | Node::Template { pipe: Some(pipe), .. } => of_pipe(pipe, names),
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
                of_pipe(&branch.pipe, names);
                identifiers(&branch.body, names);
                identifiers(branch.otherwise.as_deref().unwrap_or_default(), names);
            }
            Node::Template { pipe: None, .. } | Node::Text(_) | Node::Break | Node::Continue => {}
        }
    }
}

fn of_pipe(pipe: &Pipe, names: &mut BTreeSet<Arc<str>>) {
    for arg in pipe.args() {
        match &arg.kind {
            ArgKind::Field(idents) | ArgKind::Variable(idents) => {
                names.extend(idents.iter().cloned());
            }
            ArgKind::Pipe(pipe) => of_pipe(pipe, names),
            _ => {}
        }
    }
}

/// True if the field was found.
fn cut_nodes(nodes: &mut Vec<Node>, name: &str) -> bool {
    for idx in 0..nodes.len() {
        let (found, keep) = match &mut nodes[idx] {
            Node::Action(pipe) => cut_pipe(pipe, name),
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
                (cut_branch(branch, name), true)
            }
            _ => (false, true),
        };
        if found {
            nodes.truncate(if keep { idx + 1 } else { idx });
            return true;
        }
    }
    false
}

fn cut_branch(branch: &mut Branch, name: &str) -> bool {
    if cut_nodes(&mut branch.body, name) {
        branch.otherwise = None;
        return true;
    }
    branch.otherwise.as_mut().is_some_and(|nodes| cut_nodes(nodes, name))
}

/// Whether the field was found, and whether anything is left. What follows it in its pipeline goes too, and with a function
/// that it would have gone to, all of it.
fn cut_pipe(pipe: &mut Pipe, name: &str) -> (bool, bool) {
    for idx in 0..pipe.commands.len() {
        let args = &mut pipe.commands[idx].args;
        for at in 0..args.len() {
            let found = match &mut args[at].kind {
                ArgKind::Field(fields) => fields.iter().any(|field| **field == *name),
                ArgKind::Pipe(pipe) => cut_pipe(pipe, name).0,
                _ => false,
            };
            if found {
                args.truncate(at + 1);
                let is_last = idx + 1 == pipe.commands.len();
                return (true, is_last);
            }
        }
    }
    (false, true)
}
