//! From text to tokens.

use crate::TemplateError;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Open,
    Close,
    Space,
    Assign,
    Declare,
    Pipe,
    Comma,
    LeftParen,
    RightParen,
    /// With its `$`.
    Variable,
    /// With its `.`.
    Field,
    Dot,
    Word,
    Number,
    Char,
    Quoted,
    Raw,
    /// A character with no meaning.
    Other,
    End,
    /// From here on nothing makes sense.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) at: Range<usize>,
    pub(crate) line: usize,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The last token is `End`, or `Bad` with what is wrong there. What stands before that is read first.
pub(crate) fn lex(source: &str) -> (Vec<Token>, Option<TemplateError>) {
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    let error = lexer.run().err();
    if error.is_some() {
        lexer.push(Kind::Bad, 0);
    }
    (lexer.tokens, error)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), TemplateError> {
        loop {
            let rest = self.rest();
            let Some(open) = rest.find("{{") else {
                self.text(rest);
                self.push(Kind::End, 0);
                return Ok(());
            };
            let (text, action) = (&rest[..open], &rest[open + 2..]);
            let (start, trims) = (self.at, trims_before(action));
            self.text(if trims { text.trim_end_matches(SPACE) } else { text });
            self.skip(start + open - self.at);
            let marker = if trims { 2 } else { 0 };
            if action[marker..].starts_with("/*") {
                self.comment(2 + marker)?;
            } else {
                self.push(Kind::Open, 2);
                self.skip(marker);
                self.action()?;
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Kind::Text, text.len());
        }
    }

    fn push(&mut self, kind: Kind, len: usize) {
        let (start, line) = (self.at, self.line);
        self.skip(len);
        self.tokens.push(Token { kind, at: start..self.at, line });
    }

    fn skip(&mut self, len: usize) {
        self.line += self.rest()[..len].bytes().filter(|byte| *byte == b'\n').count();
        self.at += len;
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, message))
    }

    fn comment(&mut self, opening: usize) -> Result<(), TemplateError> {
        let Some(len) = self.rest()[opening + 2..].find("*/") else {
            return self.error("unclosed comment");
        };
        self.skip(opening + 2 + len + 2);
        match closing(self.rest()) {
            Some(trims) => {
                self.close(trims);
                Ok(())
            }
            None => self.error("comment ends before closing delimiter"),
        }
    }

    /// Passes `}}` and what it trims.
    fn close(&mut self, trims: bool) {
        self.skip(if trims { 4 } else { 2 });
        if trims {
            let rest = self.rest();
            self.skip(rest.len() - rest.trim_start_matches(SPACE).len());
        }
    }

    fn action(&mut self) -> Result<(), TemplateError> {
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if let Some(trims) = closing(rest) {
                if depth > 0 {
                    return self.error("unclosed left paren");
                }
                self.push(Kind::Close, 0);
                self.close(trims);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                return self.error("unclosed action");
            };
            match first {
                c if SPACE.contains(&c) => self.space(),
                '=' => self.push(Kind::Assign, 1),
                ':' if rest.starts_with(":=") => self.push(Kind::Declare, 2),
                ':' => return self.error("expected :="),
                '|' => self.push(Kind::Pipe, 1),
                ',' => self.push(Kind::Comma, 1),
                '"' => self.quoted(Kind::Quoted, '"', "unterminated quoted string")?,
                '\'' => self.quoted(Kind::Char, '\'', "unterminated character constant")?,
                '`' => match rest[1..].find('`') {
                    Some(len) => self.push(Kind::Raw, len + 2),
                    None => return self.error("unterminated raw quoted string"),
                },
                '$' => self.word(1, Kind::Variable)?,
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    if ends_a_word(&rest[1..]) {
                        self.push(Kind::Dot, 1);
                    } else {
                        self.word(1, Kind::Field)?;
                    }
                }
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                c if is_word(c) => self.word(0, Kind::Word)?,
                '(' => {
                    depth += 1;
                    self.push(Kind::LeftParen, 1);
                }
                ')' if depth == 0 => return self.error("unexpected right paren"),
                ')' => {
                    depth -= 1;
                    self.push(Kind::RightParen, 1);
                }
                ' '..='~' => self.push(Kind::Other, 1),
                c => return self.error(format!("unrecognized character in action: {c:?}")),
            }
        }
    }

    fn space(&mut self) {
        let rest = self.rest();
        let len = rest.len() - rest.trim_start_matches(SPACE).len();
        // The last space before `-}}` belongs to that.
        let len = if closing(&rest[len - 1..]) == Some(true) { len - 1 } else { len };
        if len > 0 {
            self.push(Kind::Space, len);
        }
    }

    fn quoted(&mut self, kind: Kind, end: char, unterminated: &str) -> Result<(), TemplateError> {
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((idx, c)) = chars.next() {
            match c {
                '\\' if !matches!(chars.next(), None | Some((_, '\n'))) => {}
                '\\' | '\n' => break,
                c if c == end => {
                    self.push(kind, idx + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.error(unterminated)
    }

    fn word(&mut self, prefix: usize, kind: Kind) -> Result<(), TemplateError> {
        let rest = &self.rest()[prefix..];
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if !ends_a_word(&rest[len..]) {
            let bad = rest[len..].chars().next().unwrap_or_default();
            return self.error(format!("bad character {bad:?}"));
        }
        self.push(kind, prefix + len);
        Ok(())
    }

    /// Takes what may be a number; `number.rs` finds out whether it is.
    fn number(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut len = 0;
        let mut last = ' ';
        for c in rest.chars() {
            let sign =
                matches!(c, '+' | '-') && (len == 0 || matches!(last, 'e' | 'E' | 'p' | 'P'));
            let hex_e = sign && len > 0 && matches!(last, 'e' | 'E') && is_hex(&rest[..len]);
            if !(is_word(c) || c == '.' || sign) || hex_e {
                break;
            }
            (last, len) = (c, len + c.len_utf8());
        }
        if rest[len..].starts_with(['+', '-']) {
            return self.error("complex numbers are not supported");
        }
        self.push(Kind::Number, len);
        Ok(())
    }
}

fn is_hex(number: &str) -> bool {
    let digits = number.trim_start_matches(['+', '-']);
    digits.starts_with("0x") || digits.starts_with("0X")
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// What may follow a name or a variable.
fn ends_a_word(rest: &str) -> bool {
    rest.starts_with(SPACE)
        || rest.starts_with(['.', ',', '|', ':', ')', '('])
        || rest.starts_with("}}")
        || rest.is_empty()
}

fn trims_before(action: &str) -> bool {
    action.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACE))
}

/// Whether `}}` is next, and whether it trims.
fn closing(rest: &str) -> Option<bool> {
    if rest.strip_prefix(SPACE).is_some_and(|rest| rest.starts_with("-}}")) {
        return Some(true);
    }
    rest.starts_with("}}").then_some(false)
}
