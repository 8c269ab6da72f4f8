//! The parsed form of a template, for those who look for something in it.

use std::sync::Arc;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// What stands outside of `{{` and `}}`, trimmed.
    Text(Arc<str>),
    /// `{{ pipeline }}`
    Action(Pipe),
    /// `{{ if }}`
    If(Branch),
    /// `{{ with }}`
    With(Branch),
    /// `{{ range }}`
    Range(Branch),
    /// `{{ template }}`, and what is left of a `{{ block }}`.
    Template {
        /// Where it stands.
        line: usize,
        /// Which.
        name: String,
        /// What is its dot; absent: nothing.
        pipe: Option<Pipe>,
    },
    /// `{{ break }}`
    Break,
    /// `{{ continue }}`
    Continue,
}

/// What `if`, `with` and `range` have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// What decides.
    pub pipe: Pipe,
    /// What stands before `else`.
    pub body: Vec<Node>,
    /// What stands after it; `else if` is an `if` in there.
    pub otherwise: Option<Vec<Node>>,
}

/// Commands of which each gets what the one before it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipe {
    /// Where it begins.
    pub line: usize,
    /// Variables that get the result, with their `$`.
    pub variables: Vec<Arc<str>>,
    /// The variables are there already: `=` and not `:=`.
    pub assigns: bool,
    /// At least one.
    pub commands: Vec<Command>,
}

/// A value, or a function and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// At least one.
    pub args: Vec<Arg>,
}

/// Something that has a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Arg {
    /// Where it stands.
    pub line: usize,
    /// What it is.
    pub kind: ArgKind,
}

/// The kinds of [`Arg`].
#[derive(Debug, Clone, PartialEq)]
pub enum ArgKind {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `true` and `false`
    Bool(bool),
    /// A whole number, or a character.
    Int(i64),
    /// A number that Go's rules make no `int`; it may be used nowhere.
    TooLarge(u64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A quoted text.
    Text(Arc<str>),
    /// `.A.B`
    Field(Vec<Arc<str>>),
    /// `$a.B`: the variable with its `$`, then fields.
    Variable(Vec<Arc<str>>),
    /// The name of a function.
    Function(Arc<str>),
    /// A pipeline in parentheses.
    Pipe(Box<Pipe>),
    /// Fields of what parentheses or a function answer.
    Chain(Box<Arg>, Vec<Arc<str>>),
}

impl Pipe {
    /// All values in it, those inside parentheses excluded.
    pub fn args(&self) -> impl Iterator<Item = &Arg> {
        self.commands.iter().flat_map(|command| &command.args)
    }
}
