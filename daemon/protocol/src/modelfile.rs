//! Modelfiles: reading and writing what a model is to be made of. The wire carries what they say, in [`CreateParams`](crate::CreateParams).
//!
//! The grammar is Ollama's with its quirks: keywords in any case, comments only at the start of a line, values bare to the end
//! of the line or in one or three double quotes over several, no escapes, and characters that do not print dropped.
//! Writing takes the plainest form that reads back the same, and fails where there is none.

use std::str::Chars;

/// The commands of a Modelfile, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modelfile {
    /// At least one is [`Instruction::From`].
    pub commands: Vec<Instruction>,
}

/// One command. Of `Template`, `System`, `Renderer`, `Parser`, `Requires` and each parameter but `stop` the last counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// A model's name, or a path of weights.
    From(String),
    /// A path of a LoRA adapter.
    Adapter(String),
    /// A path of a smaller model that guesses ahead.
    Draft(String),
    /// An option of requests, or of how the model is loaded.
    Parameter {
        /// By Ollama's name.
        name: String,
        /// As it is written.
        value: String,
    },
    /// A chat template in Go's language.
    Template(String),
    /// The system prompt.
    System(String),
    /// A licence's text; there may be several.
    License(String),
    /// One that every chat begins with.
    Message {
        /// `system`, `user` or `assistant`.
        role: String,
        /// Its text.
        content: String,
    },
    /// A renderer that is built into Ollama.
    Renderer(String),
    /// A parser that is built into Ollama.
    Parser(String),
    /// The least version of Ollama.
    Requires(String),
}

/// What is wrong in a Modelfile, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadModelfile {
    /// From 1.
    pub line: usize,
    /// What, without the line.
    pub message: String,
}

/// A value that no Modelfile can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of `{keyword}` cannot be written in a Modelfile: {reason}")]
pub struct Unwritable {
    /// Such as `SYSTEM`.
    pub keyword: &'static str,
    /// Why.
    pub reason: &'static str,
}

const KEYWORDS: [&str; 11] = [
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
];
const ROLES: [&str; 3] = ["system", "user", "assistant"];

impl Modelfile {
    /// Reads a Modelfile. Without `FROM` it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadModelfile> {
        let text = decode(bytes);
        let mut reader = Reader { chars: text.chars(), line: 1 };
        let mut commands = Vec::new();
        while let Some(keyword) = reader.keyword()? {
            commands.push(reader.instruction(&keyword)?);
        }
        if commands.iter().any(|command| matches!(command, Instruction::From(_))) {
            return Ok(Self { commands });
        }
        reader.error("no FROM line")
    }

    /// Writes a Modelfile that reads back as this one.
    pub fn write(&self) -> Result<String, Unwritable> {
        self.commands.iter().map(|command| Ok(command.line()? + "\n")).collect()
    }
}

impl Instruction {
    fn line(&self) -> Result<String, Unwritable> {
        let (keyword, word, value) = match self {
            Self::From(value) => ("FROM", None, value),
            Self::Adapter(value) => ("ADAPTER", None, value),
            Self::Draft(value) => ("DRAFT", None, value),
            Self::Parameter { name, value } => ("PARAMETER", Some(name), value),
            Self::Template(value) => ("TEMPLATE", None, value),
            Self::System(value) => ("SYSTEM", None, value),
            Self::License(value) => ("LICENSE", None, value),
            Self::Message { role, content } => ("MESSAGE", Some(role), content),
            Self::Renderer(value) => ("RENDERER", None, value),
            Self::Parser(value) => ("PARSER", None, value),
            Self::Requires(value) => ("REQUIRES", None, value),
        };
        let unwritable = |reason| Unwritable { keyword, reason };
        let word = match word {
            None => String::new(),
            Some(role) if keyword == "MESSAGE" && !ROLES.contains(&role.as_str()) => {
                return Err(unwritable("its role is not system, user or assistant"));
            }
            Some(word) if word.is_empty() || !word.chars().all(is_name) => {
                return Err(unwritable("its name is not of letters, digits and `_`"));
            }
            Some(word) => format!("{word} "),
        };
        let reads_back = |written: &String| {
            let mut reader = Reader { chars: written.chars(), line: 1 };
            reader.value().is_ok_and(|read| read == *value) && reader.chars.as_str().is_empty()
        };
        [value.clone(), format!("\"{value}\""), format!("\"\"\"{value}\"\"\"")]
            .into_iter()
            .map(|written| written + "\n")
            .find(reads_back)
            .map(|written| format!("{keyword} {word}{}", &written[..written.len() - 1]))
            .ok_or_else(|| {
                unwritable("it has characters that do not print, or quotes at the end of a line")
            })
    }
}

/// Text behind a byte order mark of UTF-8 or UTF-16; without one it is UTF-8.
fn decode(bytes: &[u8]) -> String {
    let utf16 = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => utf16(u16::from_be_bytes, rest),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8_lossy(rest).into_owned(),
    }
}

struct Reader<'a> {
    chars: Chars<'a>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, BadModelfile> {
        Err(BadModelfile { line: self.line, message: message.into() })
    }

    /// The next command's first word in lower case, and the blank after it; `None` at the end.
    fn keyword(&mut self) -> Result<Option<String>, BadModelfile> {
        loop {
            match self.peek() {
                None => return Ok(None),
                Some('#') => while self.next().is_some_and(|c| !is_newline(c)) {},
                Some(c) if is_blank(c) || is_newline(c) => drop(self.next()),
                Some(_) => break,
            }
        }
        let line = self.line;
        let keyword = self.word(|c| c.is_ascii_alphabetic())?.to_ascii_lowercase();
        if KEYWORDS.contains(&keyword.as_str()) {
            return Ok(Some(keyword));
        }
        let known = KEYWORDS.map(|keyword| format!("\"{keyword}\"")).join(", ");
        Err(BadModelfile { line, message: format!("command must be one of {known}") })
    }

    fn instruction(&mut self, keyword: &str) -> Result<Instruction, BadModelfile> {
        Ok(match keyword {
            "parameter" => {
                let name = self.word(is_name)?;
                if name.is_empty() {
                    return self.error("a parameter has no name or no value");
                }
                Instruction::Parameter { name, value: self.value()? }
            }
            "message" => {
                let role = self.word(|c| c.is_ascii_alphabetic())?;
                if !ROLES.contains(&role.as_str()) {
                    return self.error(
                        "message role must be one of \"system\", \"user\", or \"assistant\"",
                    );
                }
                Instruction::Message { role, content: self.value()? }
            }
            "from" => Instruction::From(self.value()?),
            "adapter" => Instruction::Adapter(self.value()?),
            "draft" => Instruction::Draft(self.value()?),
            "template" => Instruction::Template(self.value()?),
            "system" => Instruction::System(self.value()?),
            "license" => Instruction::License(self.value()?),
            "renderer" => Instruction::Renderer(self.value()?),
            "parser" => Instruction::Parser(self.value()?),
            _ => Instruction::Requires(self.value()?),
        })
    }

    /// A word and the blank that has to follow it; empty if something else does.
    fn word(&mut self, belongs: fn(char) -> bool) -> Result<String, BadModelfile> {
        while self.peek().is_some_and(is_blank) {
            self.next();
        }
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| belongs(*c)) {
            word.push(c);
            self.next();
        }
        match self.peek() {
            Some(c) if is_blank(c) => {
                self.next();
                Ok(word)
            }
            None => self.error("unexpected end of the file"),
            Some(_) => Ok(String::new()),
        }
    }

    /// Everything to the end of a line at which no quote is open.
    fn value(&mut self) -> Result<String, BadModelfile> {
        let mut value = String::new();
        loop {
            match self.next() {
                Some(c) if is_newline(c) => {
                    if let Some(value) = unquote(&value) {
                        return Ok(value.into());
                    }
                    value.push(c);
                }
                Some(c) if is_blank(c) || is_printable(c) => value.push(c),
                Some(_) => {}
                None => {
                    return match unquote(&value) {
                        Some(value) => Ok(value.into()),
                        None => self.error("unexpected end of the file: a quote is open"),
                    };
                }
            }
        }
    }
}

/// A value without its quotes; `None` while they are open.
fn unquote(value: &str) -> Option<&str> {
    let value = value.trim();
    for quote in ["\"\"\"", "\""] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.strip_suffix(quote);
        }
    }
    Some(value)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// As in Go: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // Marks print only after something else.
    format!("a{c}").escape_debug().eq(['a', c])
}

#[cfg(test)]
mod tests;
