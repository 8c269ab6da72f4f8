//! The functions templates may call: Go's own, and those a program adds.

use crate::escape;
use crate::exec::Failure;
use crate::format::{self, Out};
use crate::value::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A function of a program. Its error is told with its name and line.
pub type Function = Arc<dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync>;

/// The functions that a program adds to Go's own, with the number of values that each takes.
#[derive(Clone, Default)]
pub struct Functions {
    added: BTreeMap<&'static str, (usize, usize, Function)>,
}

impl Functions {
    /// Adds a function of `least` to `most` values.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        (least, most): (usize, usize),
        function: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.added.insert(name, (least, most, Arc::new(function)));
        self
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.added.contains_key(name) || arity(name).is_some()
    }

    /// Calls any function but `and` and `or`, which do not need all their values.
    pub(crate) fn call(
        &self,
        name: &str,
        args: &[Value],
        bytes_left: &mut usize,
    ) -> Result<Value, Failure> {
        let added = self.added.get(name);
        let (least, most) = match added {
            Some((least, most, _)) => (*least, *most),
            None => arity(name).unwrap_or((0, 0)),
        };
        if args.len() < least || args.len() > most {
            let wanted = if most > least { format!("at least {least}") } else { least.to_string() };
            let n = args.len();
            return fail(format!("wrong number of args for {name}: want {wanted} got {n}"));
        }
        let called = |message: String| Failure::Message(format!("error calling {name}: {message}"));
        match added {
            Some((.., function)) => {
                let answer = function(args).map_err(called)?;
                if let Value::Text(text) = &answer {
                    *bytes_left = bytes_left.checked_sub(text.len()).ok_or(Failure::TooLong)?;
                }
                Ok(answer)
            }
            None => builtin(name, args, bytes_left).map_err(|failure| match failure {
                Failure::Message(message) => called(message),
                Failure::TooLong => Failure::TooLong,
            }),
        }
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.added.keys()).finish()
    }
}

fn fail<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Message(message.into()))
}

/// How many values Go's own functions take.
fn arity(name: &str) -> Option<(usize, usize)> {
    Some(match name {
        "len" | "not" => (1, 1),
        "ne" | "lt" | "le" | "gt" | "ge" => (2, 2),
        "and" | "or" | "eq" | "index" | "slice" | "call" | "printf" => (1, usize::MAX),
        "print" | "println" | "html" | "js" | "urlquery" => (0, usize::MAX),
        _ => return None,
    })
}

fn builtin(name: &str, args: &[Value], bytes_left: &mut usize) -> Result<Value, Failure> {
    let mut out = Out { text: String::new(), left: bytes_left };
    match name {
        "print" => format::print_all(&mut out, args)?,
        "println" => format::print_line(&mut out, args)?,
        "printf" => {
            let Value::Text(format) = args[0].plain() else {
                return fail("the first value is no text");
            };
            format::print_format(&mut out, format, &args[1..])?.map_err(Failure::Message)?;
        }
        "html" | "js" | "urlquery" => {
            let shown: Vec<Value> = args
                .iter()
                .map(|arg| if arg.is_nil() { "<no value>".into() } else { arg.clone() })
                .collect();
            format::print_all(&mut out, &shown)?;
            let escape = match name {
                "html" => escape::html,
                "js" => escape::js,
                _ => escape::url_query,
            };
            let text = escape(&out.text);
            *bytes_left = bytes_left.checked_sub(text.len()).ok_or(Failure::TooLong)?;
            return Ok(text.into());
        }
        "len" => return length(&args[0]),
        "index" => return index(args),
        "slice" => return slice(args, bytes_left),
        "not" => return Ok((!args[0].is_true()).into()),
        "eq" => return equal(&args[0], &args[1..]).map(Value::Bool),
        "ne" => return equal(&args[0], &args[1..]).map(|equal| Value::Bool(!equal)),
        "lt" => return less(&args[0], &args[1]).map(Value::Bool),
        "le" => return less_or_equal(&args[0], &args[1]).map(Value::Bool),
        "gt" => return less_or_equal(&args[0], &args[1]).map(|less| Value::Bool(!less)),
        "ge" => return less(&args[0], &args[1]).map(|less| Value::Bool(!less)),
        // Nothing that templates get is a function.
        _ if args[0].is_nil() => return fail("call of nil"),
        _ => return fail(format!("non-function of type {}", args[0].type_name())),
    }
    Ok(out.text.into())
}

fn length(item: &Value) -> Result<Value, Failure> {
    let n = match item.plain() {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.len(),
        value if value.is_nil() => return fail("len of nil pointer"),
        _ => return fail(format!("len of type {}", item.type_name())),
    };
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// A place in something of this length, the one after the last included.
fn place(index: &Value, n: usize) -> Result<usize, Failure> {
    match index.plain() {
        Value::Int(place) => match usize::try_from(*place) {
            Ok(place) if place <= n => Ok(place),
            _ => fail(format!("index out of range: {place}")),
        },
        value if value.is_nil() => fail("cannot index slice/array with nil"),
        _ => fail(format!("cannot index slice/array with type {}", index.type_name())),
    }
}

fn index(args: &[Value]) -> Result<Value, Failure> {
    let mut item = args[0].clone();
    if item.is_nil() {
        return fail("index of untyped nil");
    }
    for index in &args[1..] {
        let found = match item.plain() {
            Value::List(list) => {
                let place = place(index, list.items().len())?;
                list.items().get(place).cloned().ok_or(place)
            }
            Value::Text(text) => {
                let place = place(index, text.len())?;
                text.as_bytes().get(place).map(|byte| Value::Int((*byte).into())).ok_or(place)
            }
            Value::Map(map) => match index.plain() {
                Value::Text(key) => Ok(map.get(key).cloned().unwrap_or(Value::Nil)),
                value if value.is_nil() => {
                    return fail("value is nil; should be of type string");
                }
                _ => {
                    let name = index.type_name();
                    return fail(format!("value has type {name}; should be string"));
                }
            },
            value if value.is_nil() => return fail("index of nil pointer"),
            _ => return fail(format!("can't index item of type {}", item.type_name())),
        };
        item = match found {
            Ok(found) => found,
            Err(place) => return fail(format!("index out of range: {place}")),
        };
    }
    Ok(item)
}

fn slice(args: &[Value], bytes_left: &mut usize) -> Result<Value, Failure> {
    let (item, indexes) = (&args[0], &args[1..]);
    let (length, capacity) = match item.plain() {
        Value::Text(_) if indexes.len() == 3 => return fail("cannot 3-index slice a string"),
        Value::Text(text) => (text.len(), text.len()),
        Value::List(list) => (list.items().len(), list.capacity()),
        value if value.is_nil() => return fail("slice of untyped nil"),
        _ => return fail(format!("can't slice item of type {}", item.type_name())),
    };
    if indexes.len() > 3 {
        return fail(format!("too many slice indexes: {}", indexes.len()));
    }
    let mut ends = [0, length, capacity];
    for (end, index) in ends.iter_mut().zip(indexes) {
        *end = place(index, capacity)?;
    }
    let [from, to, limit] = ends;
    if from > to || to > limit {
        let (low, high) = if from > to { (from, to) } else { (to, limit) };
        return fail(format!("invalid slice index: {low} > {high}"));
    }
    let part = match item.plain() {
        Value::Text(text) => {
            let Some(part) = text.get(from..to) else {
                return fail("the slice would cut a character");
            };
            *bytes_left = bytes_left.checked_sub(part.len()).ok_or(Failure::TooLong)?;
            part.into()
        }
        Value::List(list) => list.slice(from, to).map_or(Value::Nil, Value::List),
        _ => Value::Nil,
    };
    Ok(match item {
        Value::Typed(typed) => part.typed(typed.methods),
        _ => part,
    })
}

fn equal(one: &Value, others: &[Value]) -> Result<bool, Failure> {
    if others.is_empty() {
        return fail("missing argument for comparison");
    }
    for other in others {
        let is_equal = match (one.plain(), other.plain()) {
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::Int(one), Value::Int(other)) => one == other,
            (Value::Float(one), Value::Float(other)) => one == other,
            (Value::Text(one), Value::Text(other)) => one == other,
            (one, other) if one.is_nil() || other.is_nil() => one.is_nil() && other.is_nil(),
            _ => {
                let (one, other) = (one.type_name(), other.type_name());
                return fail(format!("incompatible types for comparison: {one} and {other}"));
            }
        };
        if is_equal {
            return Ok(true);
        }
    }
    Ok(false)
}

fn less(one: &Value, other: &Value) -> Result<bool, Failure> {
    match (one.plain(), other.plain()) {
        (Value::Int(one), Value::Int(other)) => Ok(one < other),
        (Value::Float(one), Value::Float(other)) => Ok(one < other),
        (Value::Text(one), Value::Text(other)) => Ok(one < other),
        (
            Value::Int(_) | Value::Float(_) | Value::Text(_),
            Value::Int(_) | Value::Float(_) | Value::Text(_),
        ) => {
            let (one, other) = (one.type_name(), other.type_name());
            fail(format!("incompatible types for comparison: {one} and {other}"))
        }
        _ => fail("invalid type for comparison"),
    }
}

fn less_or_equal(one: &Value, other: &Value) -> Result<bool, Failure> {
    Ok(less(one, other)? || equal(one, std::slice::from_ref(other))?)
}
