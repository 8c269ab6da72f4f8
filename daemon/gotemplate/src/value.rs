//! What templates compute with.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A map's keys come in order, as Go's templates take them.
pub type Map = BTreeMap<Arc<str>, Value>;

/// Anything a template can hold. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub enum Value {
    /// Nothing: the answer of a pipeline that found nothing. It prints as `<no value>`.
    #[default]
    Absent,
    /// An empty interface, as a map's missing entry is one. To ask it for a field is an error.
    Nil,
    /// Go's `bool`.
    Bool(bool),
    /// Go's `int`.
    Int(i64),
    /// Go's `float64`, and with that every number of JSON.
    Float(f64),
    /// Go's `string`.
    Text(Arc<str>),
    /// Go's slices.
    List(List),
    /// Go's maps with keys of text.
    Map(Arc<Map>),
    /// Go's structs, and pointers to them.
    Struct(Arc<Struct>),
    /// A value of a type with methods.
    Typed(Arc<Typed>),
}

/// Part of an array, as Go's slices are.
#[derive(Debug, Clone)]
pub struct List {
    array: Arc<[Value]>,
    from: usize,
    to: usize,
}

/// Fields in the order of their declaration. It is true even if they are all empty.
#[derive(Debug, Clone)]
pub struct Struct {
    /// What errors and `%T` call it.
    pub type_name: &'static str,
    /// The exported ones.
    pub fields: Vec<Field>,
}

/// A field of a [`Struct`].
#[derive(Debug, Clone)]
pub struct Field {
    /// What templates call it.
    pub name: Arc<str>,
    /// What JSON calls it.
    pub json: Arc<str>,
    /// JSON leaves it out while it is empty.
    pub omit_empty: bool,
    /// Its content.
    pub value: Value,
}

/// A value and the methods of its type. Where none of them has a say, it is as the value alone.
#[derive(Debug, Clone)]
pub struct Typed {
    /// The value alone.
    pub value: Value,
    /// What its type adds.
    pub methods: &'static Methods,
}

/// A method without arguments.
pub type Method = fn(&Value) -> Value;

/// The methods of a Go type.
#[derive(Debug)]
pub struct Methods {
    /// What errors and `%T` call the type.
    pub type_name: &'static str,
    /// `String`: how values print.
    pub string: Option<fn(&Value) -> String>,
    /// `MarshalJSON`.
    pub json: Option<fn(&Value) -> String>,
    /// Others, by name, without arguments.
    pub others: &'static [(&'static str, Method)],
}

impl List {
    /// As many as there are.
    pub fn items(&self) -> &[Value] {
        &self.array[self.from..self.to]
    }

    /// How far it can be extended again.
    pub(crate) fn capacity(&self) -> usize {
        self.array.len() - self.from
    }

    /// `None` if the ends are out of range or the wrong way round.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Option<Self> {
        (from <= to && to <= self.capacity()).then(|| Self {
            array: Arc::clone(&self.array),
            from: self.from + from,
            to: self.from + to,
        })
    }
}

impl Value {
    /// What templates take for true.
    pub fn is_true(&self) -> bool {
        match self.plain() {
            Self::Absent | Self::Nil | Self::Typed(_) => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items().is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Struct(_) => true,
        }
    }

    /// Without methods.
    pub fn plain(&self) -> &Self {
        let mut value = self;
        while let Self::Typed(typed) = value {
            value = &typed.value;
        }
        value
    }

    /// Gives the value methods.
    #[must_use]
    pub fn typed(self, methods: &'static Methods) -> Self {
        Self::Typed(Arc::new(Typed { value: self, methods }))
    }

    /// Nothing, of either kind.
    pub(crate) fn is_nil(&self) -> bool {
        matches!(self, Self::Absent | Self::Nil)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Absent | Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Struct(fields) => fields.type_name,
            Self::Typed(typed) => typed.methods.type_name,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(Arc::new(map))
    }
}

impl From<Struct> for Value {
    fn from(fields: Struct) -> Self {
        Self::Struct(Arc::new(fields))
    }
}

impl FromIterator<Self> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        let array: Arc<[Self]> = items.into_iter().collect();
        let to = array.len();
        Self::List(List { array, from: 0, to })
    }
}
