//! From tokens to nodes.
//!
//! Names are resolved here as far as Go does it: a function or a variable that nobody declares is an error before anything
//! is rendered. A template of a name that nobody defines is one only where it is used.

use crate::lex::{Kind, Token, lex};
use crate::node::{Arg, ArgKind, Branch, Command, Node, Pipe};
use crate::{Functions, MAX_DEPTH, MAX_SOURCE, MAX_VARIABLES, TemplateError, number, quote};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A text's own nodes, and those of the templates it defines.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) root: Vec<Node>,
    pub(crate) defined: BTreeMap<String, Vec<Node>>,
}

pub(crate) fn parse(source: &str, functions: &Functions) -> Result<Parsed, TemplateError> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::new(
            1,
            format!("the template is longer than {MAX_SOURCE} bytes"),
        ));
    }
    let (tokens, bad) = lex(source);
    let mut parser = Parser {
        source,
        tokens,
        bad,
        at: 0,
        functions,
        variables: vec!["$".into()],
        n_ranges: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let root = parser.root()?;
    Ok(Parsed { root, defined: parser.defined })
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    /// What is wrong where the token `Bad` stands.
    bad: Option<TemplateError>,
    at: usize,
    functions: &'a Functions,
    /// In scope, outermost first.
    variables: Vec<Arc<str>>,
    /// Loops around this place.
    n_ranges: usize,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What ends a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Source,
    End,
    /// The word after it, if it is one that may follow, is still to be read.
    Else,
}

impl Parser<'_> {
    fn root(&mut self) -> Result<Vec<Node>, TemplateError> {
        match self.nodes()? {
            (root, Ending::Source) => Ok(root),
            (_, Ending::End) => self.error("unexpected {{end}}"),
            (_, Ending::Else) => self.error("unexpected {{else}}"),
        }
    }

    /// Nodes up to an `end`, an `else` or the end of the source.
    fn nodes(&mut self) -> Result<(Vec<Node>, Ending), TemplateError> {
        let mut nodes = Vec::new();
        let is_outermost = self.depth == 0;
        loop {
            let token = self.next();
            match token.kind {
                Kind::End => return Ok((nodes, Ending::Source)),
                Kind::Text => nodes.push(Node::Text(self.text(&token).into())),
                Kind::Open => {}
                _ => return self.unexpected(&token, "input"),
            }
            if token.kind == Kind::Text {
                continue;
            }
            let token = self.next_word();
            match (token.kind, self.text(&token)) {
                (Kind::Word, "define") if is_outermost => self.define()?,
                (Kind::Word, "end") => {
                    self.expect(Kind::Close, "end")?;
                    return Ok((nodes, Ending::End));
                }
                (Kind::Word, "else") => {
                    let next = self.peek_word();
                    if !matches!(self.text(&next), "if" | "with") {
                        self.expect(Kind::Close, "else")?;
                    }
                    return Ok((nodes, Ending::Else));
                }
                (Kind::Word, "if") => nodes.push(Node::If(self.branch("if")?)),
                (Kind::Word, "with") => nodes.push(Node::With(self.branch("with")?)),
                (Kind::Word, "range") => nodes.push(Node::Range(self.branch("range")?)),
                (Kind::Word, "template") => nodes.push(self.template(token.line)?),
                (Kind::Word, "block") => nodes.push(self.block(token.line)?),
                (Kind::Word, "break") => nodes.push(self.jump("{{break}}", Node::Break)?),
                (Kind::Word, "continue") => nodes.push(self.jump("{{continue}}", Node::Continue)?),
                _ => {
                    if token.kind != Kind::Bad {
                        self.at -= 1;
                    }
                    nodes.push(Node::Action(self.pipe("command", Kind::Close)?));
                }
            }
        }
    }

    fn define(&mut self) -> Result<(), TemplateError> {
        let name = self.template_name("define clause")?;
        self.expect(Kind::Close, "define clause")?;
        self.body_of(name, "define clause")
    }

    fn block(&mut self, line: usize) -> Result<Node, TemplateError> {
        let name = self.template_name("block clause")?;
        let pipe = self.pipe("block clause", Kind::Close)?;
        self.body_of(name.clone(), "block clause")?;
        Ok(Node::Template { line, name, pipe: Some(pipe) })
    }

    /// The nodes of a template inside the text, which sees no variables from outside.
    fn body_of(&mut self, name: String, context: &str) -> Result<(), TemplateError> {
        let outside = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let n_ranges = std::mem::take(&mut self.n_ranges);
        let (body, ending): (Vec<Node>, Ending) = self.deeper(Self::nodes)?;
        match ending {
            Ending::End => {}
            Ending::Else => return self.error(format!("unexpected {{{{else}}}} in {context}")),
            Ending::Source => return self.error("unexpected EOF"),
        }
        self.variables = outside;
        self.n_ranges = n_ranges;
        if name.is_empty() {
            // It would be another name of the whole text.
            return self.error("the name of a template is empty");
        }
        let is_empty = |nodes: &[Node]| {
            nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.defined.get(&name) {
            Some(known) if !is_empty(known) && is_empty(body.as_slice()) => {}
            Some(known) if !is_empty(known) => {
                return self.error(format!("multiple definition of template {name:?}"));
            }
            _ => {
                self.defined.insert(name, body);
            }
        }
        Ok(())
    }

    fn template(&mut self, line: usize) -> Result<Node, TemplateError> {
        let name = self.template_name("template clause")?;
        let pipe = if self.peek_word().kind == Kind::Close {
            self.next_word();
            None
        } else {
            Some(self.pipe("template clause", Kind::Close)?)
        };
        Ok(Node::Template { line, name, pipe })
    }

    fn template_name(&mut self, context: &str) -> Result<String, TemplateError> {
        let token = self.next_word();
        match token.kind {
            Kind::Quoted | Kind::Raw => self.unquote(&token),
            _ => self.unexpected(&token, context),
        }
    }

    fn jump(&mut self, name: &str, node: Node) -> Result<Node, TemplateError> {
        self.expect(Kind::Close, name)?;
        if self.n_ranges == 0 {
            return self.error(format!("{name} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn branch(&mut self, context: &str) -> Result<Branch, TemplateError> {
        self.deeper(|parser| {
            let n_variables = parser.variables.len();
            let is_range = usize::from(context == "range");
            let pipe = parser.pipe(context, Kind::Close)?;
            parser.n_ranges += is_range;
            let (body, ending) = parser.nodes()?;
            parser.n_ranges -= is_range;
            let otherwise = match ending {
                Ending::Source => return parser.error("unexpected EOF"),
                Ending::End => None,
                Ending::Else => Some(parser.otherwise(context)?),
            };
            parser.variables.truncate(n_variables);
            Ok(Branch { pipe, body, otherwise })
        })
    }

    fn otherwise(&mut self, context: &str) -> Result<Vec<Node>, TemplateError> {
        let next = self.peek_word();
        match (next.kind, self.text(&next)) {
            // One `end` ends both.
            (Kind::Word, "if") if context == "if" => {
                self.next_word();
                Ok(vec![Node::If(self.branch("if")?)])
            }
            (Kind::Word, "with") if context == "with" => {
                self.next_word();
                Ok(vec![Node::With(self.branch("with")?)])
            }
            (Kind::Word, _) if self.tokens[self.at - 1].kind != Kind::Close => {
                self.unexpected(&next, "else")
            }
            _ => match self.nodes()? {
                (nodes, Ending::End) => Ok(nodes),
                (_, Ending::Else) => self.error("expected end; found {{else}}"),
                (_, Ending::Source) => self.error("unexpected EOF"),
            },
        }
    }

    /// `$a, $b := command | command`, and what ends it.
    fn pipe(&mut self, context: &str, end: Kind) -> Result<Pipe, TemplateError> {
        let line = self.peek_word().line;
        let (variables, assigns) = self.declarations(context)?;
        let mut commands: Vec<Command> = Vec::new();
        loop {
            let token = self.peek_word();
            if token.kind == end {
                self.next_word();
                break;
            }
            let command = self.command()?;
            let first = command.args.first().map(|arg| &arg.kind);
            let runs = matches!(
                first,
                Some(
                    ArgKind::Field(_)
                        | ArgKind::Variable(_)
                        | ArgKind::Function(_)
                        | ArgKind::Pipe(_)
                        | ArgKind::Chain(..)
                )
            );
            if !commands.is_empty() && !runs {
                let stage = commands.len() + 1;
                return self.error(format!("non executable command in pipeline stage {stage}"));
            }
            commands.push(command);
        }
        if commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        Ok(Pipe { line, variables, assigns, commands })
    }

    fn declarations(&mut self, context: &str) -> Result<(Vec<Arc<str>>, bool), TemplateError> {
        let start = self.at;
        let mut names: Vec<Arc<str>> = Vec::new();
        loop {
            let variable = self.next_word();
            let operator = self.peek_word().kind;
            if variable.kind != Kind::Variable
                || !matches!(operator, Kind::Assign | Kind::Declare | Kind::Comma)
            {
                if names.is_empty() {
                    self.at = start;
                }
                break;
            }
            self.next_word();
            names.push(self.text(&variable).into());
            if operator != Kind::Comma {
                self.variables.extend(names.iter().cloned());
                if self.variables.len() > MAX_VARIABLES {
                    return self.error(format!("more than {MAX_VARIABLES} variables"));
                }
                return Ok((names, operator == Kind::Assign));
            }
            if context != "range" || names.len() > 1 {
                return self.error(format!("too many declarations in {context}"));
            }
        }
        if names.is_empty() {
            return Ok((names, false));
        }
        self.error("range can only initialize variables")
    }

    /// Values up to a `|`, which is passed, or to what ends the pipeline, which is not.
    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut args = Vec::new();
        loop {
            while self.tokens[self.at].kind == Kind::Space {
                self.at += 1;
            }
            args.extend(self.operand()?);
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::Close | Kind::RightParen => {
                    self.at -= 1;
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if args.is_empty() {
            return self.error("empty command");
        }
        Ok(Command { args })
    }

    /// A term and the fields that follow it.
    fn operand(&mut self) -> Result<Option<Arg>, TemplateError> {
        let Some(mut arg) = self.term()? else { return Ok(None) };
        let mut fields: Vec<Arc<str>> = Vec::new();
        while self.tokens[self.at].kind == Kind::Field {
            let token = self.next();
            fields.push(self.text(&token)[1..].into());
        }
        if fields.is_empty() {
            return Ok(Some(arg));
        }
        match &mut arg.kind {
            ArgKind::Field(names) | ArgKind::Variable(names) => names.extend(fields),
            ArgKind::Function(_) | ArgKind::Pipe(_) => {
                let line = arg.line;
                arg = Arg { line, kind: ArgKind::Chain(Box::new(arg), fields) };
            }
            _ => return self.error("unexpected . after a constant"),
        }
        Ok(Some(arg))
    }

    fn term(&mut self) -> Result<Option<Arg>, TemplateError> {
        let token = self.tokens[self.at].clone();
        let text = self.text(&token);
        let kind = match token.kind {
            Kind::Dot => ArgKind::Dot,
            Kind::Field => ArgKind::Field(vec![text[1..].into()]),
            Kind::Variable => {
                if !self.variables.iter().any(|known| **known == *text) {
                    return self.error(format!("undefined variable {text:?}"));
                }
                ArgKind::Variable(vec![text.into()])
            }
            Kind::Word => match text {
                "true" => ArgKind::Bool(true),
                "false" => ArgKind::Bool(false),
                "nil" => ArgKind::Nil,
                "define" | "else" | "end" | "if" | "range" | "template" | "with" | "block"
                | "break" | "continue" => return Ok(None),
                name if self.functions.contains(name) => ArgKind::Function(name.into()),
                name => return self.error(format!("function {name:?} not defined")),
            },
            Kind::Number => match number::parse(text) {
                Ok(number) => number,
                Err(message) => return self.error(message),
            },
            Kind::Char => {
                let text = self.unquote(&token)?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => ArgKind::Int(u32::from(c).into()),
                    _ => return self.error("malformed character constant"),
                }
            }
            Kind::Quoted | Kind::Raw => ArgKind::Text(self.unquote(&token)?.into()),
            Kind::LeftParen => {
                self.at += 1;
                let pipe =
                    self.deeper(|parser| parser.pipe("parenthesized pipeline", Kind::RightParen))?;
                return Ok(Some(Arg { line: token.line, kind: ArgKind::Pipe(Box::new(pipe)) }));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(Arg { line: token.line, kind }))
    }

    fn deeper<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == MAX_DEPTH {
            return self.error(format!("more than {MAX_DEPTH} blocks inside each other"));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    /// The next token. The last one comes again and again.
    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if !matches!(token.kind, Kind::End | Kind::Bad) {
            self.at += 1;
        }
        token
    }

    fn next_word(&mut self) -> Token {
        while self.tokens[self.at].kind == Kind::Space {
            self.at += 1;
        }
        self.next()
    }

    fn peek_word(&self) -> Token {
        let mut at = self.at;
        while self.tokens[at].kind == Kind::Space {
            at += 1;
        }
        self.tokens[at].clone()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<(), TemplateError> {
        let token = self.next_word();
        if token.kind == kind { Ok(()) } else { self.unexpected(&token, context) }
    }

    fn text(&self, token: &Token) -> &str {
        &self.source[token.at.clone()]
    }

    fn unquote(&self, token: &Token) -> Result<String, TemplateError> {
        quote::unquote(self.text(token)).or_else(|message| self.error(message))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Result<T, TemplateError> {
        let what = match token.kind {
            Kind::Bad => {
                return Err(self
                    .bad
                    .clone()
                    .unwrap_or_else(|| TemplateError::new(token.line, context)));
            }
            Kind::End => "EOF".to_string(),
            Kind::Close => "\"}}\"".to_string(),
            _ => format!("{:?}", self.text(token).chars().take(40).collect::<String>()),
        };
        Err(TemplateError::new(token.line, format!("unexpected {what} in {context}")))
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        // The line of what was read last.
        let line = self.tokens[self.at.saturating_sub(1)].line;
        Err(TemplateError::new(line, message))
    }
}
