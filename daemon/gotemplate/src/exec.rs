//! Rendering: walks the nodes and writes.

use crate::format::{self, Out};
use crate::functions::Functions;
use crate::node::{Arg, ArgKind, Branch, Command, Node, Pipe};
use crate::value::{List, Map, Typed, Value};
use crate::{MAX_BYTES, MAX_DEPTH, MAX_STEPS, TemplateError};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Why something could not be computed; whoever knows the line makes an [`TemplateError`] of it.
#[derive(Debug)]
pub(crate) enum Failure {
    Message(String),
    TooLong,
}

impl From<fmt::Error> for Failure {
    fn from(_: fmt::Error) -> Self {
        Self::TooLong
    }
}

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(crate) fn render(
    root: &[Node],
    defined: &BTreeMap<String, Vec<Node>>,
    functions: &Functions,
    data: &Value,
) -> Result<String, TemplateError> {
    let mut state = State {
        defined,
        functions,
        variables: vec![("$".into(), data.clone())],
        output: String::new(),
        depth: 0,
        steps_left: MAX_STEPS,
        bytes_left: MAX_BYTES,
        line: 1,
    };
    state.nodes(root, data).map_err(|failure| {
        TemplateError::new(
            state.line,
            match failure {
                Failure::Message(message) => message,
                Failure::TooLong => format!("the template writes more than {MAX_BYTES} bytes"),
            },
        )
    })?;
    Ok(state.output)
}

/// Of text that a function looks at.
const BYTES_PER_STEP: usize = 256;

struct State<'a> {
    defined: &'a BTreeMap<String, Vec<Node>>,
    functions: &'a Functions,
    variables: Vec<(Arc<str>, Value)>,
    output: String,
    depth: usize,
    steps_left: usize,
    bytes_left: usize,
    /// Of what is computed now.
    line: usize,
}

fn fail<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Message(message.into()))
}

impl<'a> State<'a> {
    fn steps(&mut self, n: usize) -> Result<(), Failure> {
        match self.steps_left.checked_sub(n) {
            Some(left) => self.steps_left = left,
            None => return fail(format!("the template takes more than {MAX_STEPS} steps")),
        }
        Ok(())
    }

    fn deeper<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.depth == MAX_DEPTH {
            return fail(format!("more than {MAX_DEPTH} blocks and templates inside each other"));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    fn write(&mut self, write: impl FnOnce(&mut Out<'_>) -> fmt::Result) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.output);
        let mut out = Out { text, left: &mut self.bytes_left };
        let result = write(&mut out);
        self.output = out.text;
        Ok(result?)
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, Failure> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, Failure> {
        self.steps(1)?;
        match node {
            Node::Text(text) => self.write(|out| fmt::Write::write_str(out, text))?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.write(|out| match value {
                        Value::Absent => fmt::Write::write_str(out, "<no value>"),
                        value => format::print(out, &value),
                    })?;
                }
            }
            Node::If(branch) => return self.branch(branch, dot, false),
            Node::With(branch) => return self.branch(branch, dot, true),
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template { line, name, pipe } => {
                self.template(*line, name, pipe.as_ref(), dot)?
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        branch: &'a Branch,
        dot: &Value,
        moves_dot: bool,
    ) -> Result<Flow, Failure> {
        self.deeper(|state| {
            let n_variables = state.variables.len();
            let value = state.pipe(&branch.pipe, dot)?;
            let flow = if value.is_true() {
                state.nodes(&branch.body, if moves_dot { &value } else { dot })
            } else {
                state.nodes(branch.otherwise.as_deref().unwrap_or_default(), dot)
            };
            state.variables.truncate(n_variables);
            flow
        })
    }

    fn template(
        &mut self,
        line: usize,
        name: &str,
        pipe: Option<&'a Pipe>,
        dot: &Value,
    ) -> Result<(), Failure> {
        self.line = line;
        let defined = self.defined;
        let Some(nodes) = defined.get(name) else {
            return fail(format!("template {name:?} not defined"));
        };
        let dot = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Absent,
        };
        self.deeper(|state| {
            let outside = std::mem::replace(&mut state.variables, vec![("$".into(), dot.clone())]);
            state.nodes(nodes, &dot)?;
            state.variables = outside;
            Ok(())
        })
    }

    fn range(&mut self, branch: &'a Branch, dot: &Value) -> Result<Flow, Failure> {
        self.deeper(|state| {
            let n_variables = state.variables.len();
            let value = state.pipe(&branch.pipe, dot)?;
            let n_with_own = state.variables.len();
            let mut rounds = state.rounds(branch, value.plain())?;
            let mut is_empty = true;
            while let Some((index, item)) = rounds.next() {
                is_empty = false;
                state.steps(1)?;
                state.set_loop_variables(&branch.pipe, index, &item)?;
                let flow = state.nodes(&branch.body, &item)?;
                state.variables.truncate(n_with_own);
                if flow == Flow::Break {
                    break;
                }
            }
            let mut flow = Flow::Next;
            if is_empty && let Some(nodes) = &branch.otherwise {
                flow = state.nodes(nodes, dot)?;
            }
            // In Go, a `break` after `else` ends this loop, but a `continue` there is one of the loop around it.
            if flow == Flow::Break {
                flow = Flow::Next;
            }
            state.variables.truncate(n_variables);
            Ok(flow)
        })
    }

    fn rounds(&self, branch: &Branch, value: &Value) -> Result<Rounds, Failure> {
        Ok(match value {
            Value::Int(_) if branch.pipe.variables.len() > 1 => {
                return fail("can't use an int to iterate over more than one variable");
            }
            Value::Int(number) => Rounds::Numbers(0..*number),
            Value::List(list) => Rounds::Items(list.clone(), 0),
            Value::Map(map) => Rounds::Pairs(Arc::clone(map), None),
            value if value.is_nil() => Rounds::Numbers(0..0),
            value => return fail(format!("range can't iterate over a {}", value.type_name())),
        })
    }

    fn set_loop_variables(
        &mut self,
        pipe: &Pipe,
        index: Value,
        item: &Value,
    ) -> Result<(), Failure> {
        match (pipe.variables.as_slice(), pipe.assigns) {
            ([one], true) => self.assign(one, item.clone())?,
            ([one, two], true) => {
                self.assign(one, index)?;
                self.assign(two, item.clone())?;
            }
            (variables, _) => {
                // The pipeline declared them, in this order.
                let n = self.variables.len();
                let values = if variables.len() == 1 {
                    vec![item.clone()]
                } else {
                    vec![index, item.clone()]
                };
                for (slot, value) in self.variables[n - variables.len()..].iter_mut().zip(values) {
                    slot.1 = value;
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Value) -> Result<(), Failure> {
        match self.variables.iter_mut().rev().find(|(known, _)| **known == *name) {
            Some((_, slot)) => *slot = value,
            None => return fail(format!("undefined variable: {name}")),
        }
        Ok(())
    }

    fn variable(&self, name: &str) -> Result<Value, Failure> {
        match self.variables.iter().rev().find(|(known, _)| **known == *name) {
            Some((_, value)) => Ok(value.clone()),
            None => fail(format!("undefined variable: {name}")),
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe, dot: &Value) -> Result<Value, Failure> {
        self.line = pipe.line;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(match self.command(command, dot, value)? {
                Value::Nil => Value::Absent,
                value => value,
            });
        }
        let value = value.unwrap_or_default();
        for name in &pipe.variables {
            if pipe.assigns {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        self.steps(1)?;
        let Some((first, args)) = command.args.split_first() else {
            return fail("empty command");
        };
        let has_args = !args.is_empty() || last.is_some();
        self.line = first.line;
        match &first.kind {
            ArgKind::Function(name) => self.call(name, args, dot, last),
            ArgKind::Chain(inner, fields) => {
                let value = self.arg(inner, dot)?;
                self.fields(value, fields, has_args)
            }
            ArgKind::Field(fields) => self.fields(dot.clone(), fields, has_args),
            ArgKind::Variable(names) if names.len() > 1 => {
                let value = self.variable(&names[0])?;
                self.fields(value, &names[1..], has_args)
            }
            _ if has_args => fail("can't give argument to non-function"),
            ArgKind::Nil => fail("nil is not a command"),
            _ => self.arg(first, dot),
        }
    }

    fn arg(&mut self, arg: &'a Arg, dot: &Value) -> Result<Value, Failure> {
        self.line = arg.line;
        Ok(match &arg.kind {
            ArgKind::Dot => dot.clone(),
            ArgKind::Nil => Value::Nil,
            ArgKind::Bool(truth) => Value::Bool(*truth),
            ArgKind::Int(number) => Value::Int(*number),
            ArgKind::TooLarge(number) => return fail(format!("{number} overflows int")),
            ArgKind::Float(number) => Value::Float(*number),
            ArgKind::Text(text) => Value::Text(text.clone()),
            ArgKind::Field(fields) => self.fields(dot.clone(), fields, false)?,
            ArgKind::Variable(names) => {
                let value = self.variable(&names[0])?;
                self.fields(value, &names[1..], false)?
            }
            ArgKind::Function(name) => self.call(name, &[], dot, None)?,
            ArgKind::Pipe(pipe) => self.deeper(|state| state.pipe(pipe, dot))?,
            ArgKind::Chain(inner, fields) => {
                let value = self.arg(inner, dot)?;
                self.fields(value, fields, false)?
            }
        })
    }

    fn call(
        &mut self,
        name: &str,
        args: &'a [Arg],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let line = self.line;
        if matches!(name, "and" | "or") {
            if args.is_empty() && last.is_none() {
                return fail(format!("wrong number of args for {name}: want at least 1 got 0"));
            }
            let mut value = Value::Absent;
            for arg in args {
                value = self.arg(arg, dot)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            values.push(self.arg(arg, dot)?);
        }
        values.extend(last);
        self.line = line;
        // Comparing texts takes time and yields nothing that is bounded elsewhere.
        let n_bytes = values.iter().map(|value| match value.plain() {
            Value::Text(text) => text.len(),
            _ => 0,
        });
        self.steps(n_bytes.sum::<usize>() / BYTES_PER_STEP)?;
        self.functions.call(name, &values, &mut self.bytes_left)
    }

    /// Goes from a value along names of fields, keys and methods.
    fn fields(&self, value: Value, names: &[Arc<str>], has_args: bool) -> Result<Value, Failure> {
        let mut value = value;
        for (idx, name) in names.iter().enumerate() {
            value = field(&value, name, has_args && idx + 1 == names.len())?;
        }
        Ok(value)
    }
}

fn field(value: &Value, name: &str, has_args: bool) -> Result<Value, Failure> {
    if let Value::Typed(typed) = value
        && let Some(answer) = method(typed, name)
    {
        if has_args {
            return fail(format!("wrong number of args for {name}: want 0"));
        }
        return Ok(answer);
    }
    let found = match value.plain() {
        Value::Absent => return Ok(Value::Absent),
        Value::Nil => return fail(format!("nil pointer evaluating interface {{}}.{name}")),
        Value::Map(map) => Some(map.get(name).cloned().unwrap_or(Value::Nil)),
        Value::Struct(fields) => {
            fields.fields.iter().find(|field| *field.name == *name).map(|field| field.value.clone())
        }
        _ => None,
    };
    match found {
        Some(_) if has_args => fail(format!("{name} is not a method but has arguments")),
        Some(found) => Ok(found),
        None => fail(format!("can't evaluate field {name} in type {}", value.type_name())),
    }
}

fn method(typed: &Typed, name: &str) -> Option<Value> {
    let methods = typed.methods;
    match (name, methods.string) {
        ("String", Some(string)) => Some(string(&typed.value).into()),
        _ => methods
            .others
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, method)| method(&typed.value)),
    }
}

/// What a loop goes over.
enum Rounds {
    Numbers(Range<i64>),
    Items(List, usize),
    /// After this key.
    Pairs(Arc<Map>, Option<Arc<str>>),
}

impl Rounds {
    fn next(&mut self) -> Option<(Value, Value)> {
        match self {
            Self::Numbers(numbers) => {
                numbers.next().map(|number| (Value::Absent, Value::Int(number)))
            }
            Self::Items(list, next) => {
                let item = list.items().get(*next)?.clone();
                let index = Value::Int(i64::try_from(*next).unwrap_or(i64::MAX));
                *next += 1;
                Some((index, item))
            }
            Self::Pairs(map, last) => {
                let after = last.take().map_or(Bound::Unbounded, Bound::Excluded);
                let (key, value) = map.range((after, Bound::Unbounded)).next()?;
                *last = Some(key.clone());
                Some((Value::Text(key.clone()), value.clone()))
            }
        }
    }
}
