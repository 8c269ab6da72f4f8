//! `hearth.grammar/1`: GBNF over bytes.
//!
//! Literals, character classes of ASCII, groups, alternatives and `* + ? {m,n}`. A class of other characters is
//! UNSUPPORTED, except that a negated class holds them all. Repetitions and groups become rules of their own, so that a
//! rule is nothing but alternatives of byte sets and rules; the state is the set of stacks that could go on.

use crate::model::error;
use crate::vocab::is_end;
use hearth_abi::author::Grammar;
use hearth_abi::raw::Token;
use hearth_abi::{PluginError, Result, Status};
use std::collections::BTreeSet;

/// More ways to go on than this are a grammar gone wrong, such as one with left recursion.
const MOST_STACKS: usize = 4096;
/// Deeper nesting is refused.
const MOST_FRAMES: usize = 256;

type ByteSet = [bool; 256];

#[derive(Debug, Clone)]
enum Item {
    Bytes(Box<ByteSet>),
    Rule(usize),
}

/// A place in a rule: its index, the alternative, and the item that comes next.
type Frame = (usize, usize, usize);

/// The way back from the place where the text stands. Empty: the text is complete.
type Stack = Vec<Frame>;

#[derive(Debug)]
pub(crate) struct ByteGrammar {
    rules: Vec<Vec<Vec<Item>>>,
    stacks: BTreeSet<Stack>,
}

impl ByteGrammar {
    pub(crate) fn new(text: &str, root: &str) -> Result<Self> {
        let mut parser = Parser { rest: text, names: Vec::new(), rules: Vec::new() };
        parser.grammar()?;
        let Parser { names, rules, .. } = parser;
        if let Some(index) = rules.iter().position(Option::is_none) {
            return Err(invalid(format!("rule `{}` is used and not defined", names[index])));
        }
        let rules: Vec<_> = rules.into_iter().flatten().collect();
        let root = names.iter().position(|name| name == root);
        let root = root.ok_or_else(|| invalid("the start rule is not defined"))?;
        let mut grammar = Self { rules, stacks: BTreeSet::new() };
        let starts = (0..grammar.rules[root].len())
            .map(|alternative| vec![(root, alternative, 0)])
            .collect();
        grammar.stacks = grammar.expand(starts)?;
        Ok(grammar)
    }

    /// Stacks that stand at a byte set or at the end, from any.
    fn expand(&self, from: Vec<Stack>) -> Result<BTreeSet<Stack>> {
        let (mut ready, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), from);
        while let Some(mut stack) = open.pop() {
            if stack.len() > MOST_FRAMES || seen.len() > MOST_STACKS {
                return Err(invalid("the grammar nests too deep, perhaps by left recursion"));
            }
            if !seen.insert(stack.clone()) {
                continue;
            }
            let Some((rule, alternative, place)) = stack.pop() else {
                ready.insert(stack);
                continue;
            };
            match self.rules[rule][alternative].get(place) {
                None => open.push(stack),
                Some(Item::Bytes(_)) => {
                    stack.push((rule, alternative, place));
                    ready.insert(stack);
                }
                Some(Item::Rule(inner)) => {
                    // A frame with nothing left is not kept, or a long repetition would be deep nesting.
                    if place + 1 < self.rules[rule][alternative].len() {
                        stack.push((rule, alternative, place + 1));
                    }
                    open.extend(
                        (0..self.rules[*inner].len())
                            .map(|n| [stack.as_slice(), &[(*inner, n, 0)]].concat()),
                    );
                }
            }
        }
        Ok(ready)
    }

    fn bytes_at(&self, stack: &Stack) -> Option<&ByteSet> {
        let (rule, alternative, place) = stack.last()?;
        match self.rules[*rule][*alternative].get(*place) {
            Some(Item::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

impl Grammar for ByteGrammar {
    fn mask(&mut self, tokens: &[Token], logits: &mut [f32]) -> Result<()> {
        let mut may_come = [false; 256];
        for bytes in self.stacks.iter().filter_map(|stack| self.bytes_at(stack)) {
            may_come.iter_mut().zip(bytes).for_each(|(may, byte)| *may |= byte);
        }
        let may_end = self.stacks.contains(&Stack::new());
        for (token, logit) in tokens.iter().zip(logits) {
            let allowed = match u8::try_from(*token) {
                Ok(byte) => may_come[usize::from(byte)],
                Err(_) => may_end && is_end(*token),
            };
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: Token) -> Result<()> {
        let refused = || invalid("the grammar does not allow this token here");
        let Ok(byte) = u8::try_from(token) else {
            return if is_end(token) && self.stacks.contains(&Stack::new()) {
                Ok(())
            } else {
                Err(refused())
            };
        };
        let goes_on =
            |stack: &&Stack| self.bytes_at(stack).is_some_and(|bytes| bytes[usize::from(byte)]);
        let mut next: Vec<Stack> = self.stacks.iter().filter(goes_on).cloned().collect();
        next.iter_mut().filter_map(|stack| stack.last_mut()).for_each(|frame| frame.2 += 1);
        if next.is_empty() {
            return Err(refused());
        }
        self.stacks = self.expand(next)?;
        Ok(())
    }

    fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        let before = self.stacks.clone();
        let taken = text.iter().try_for_each(|byte| self.accept((*byte).into()));
        if taken.is_err() {
            self.stacks = before;
        }
        taken
    }
}

fn invalid(message: impl Into<String>) -> PluginError {
    error(Status::InvalidArgument, message)
}

struct Parser<'a> {
    rest: &'a str,
    /// Of the rules; empty for those made from groups.
    names: Vec<String>,
    rules: Vec<Option<Vec<Vec<Item>>>>,
}

impl<'a> Parser<'a> {
    fn grammar(&mut self) -> Result<()> {
        self.skip_space();
        while !self.rest.is_empty() {
            let name = self.name().ok_or_else(|| self.wrong("a rule's name"))?;
            self.skip_space();
            if !self.take("::=") {
                return Err(self.wrong("`::=`"));
            }
            let rule = self.rule(name);
            self.rules[rule] = Some(self.alternatives()?);
        }
        Ok(())
    }

    fn wrong(&self, wanted: &str) -> PluginError {
        invalid(format!(
            "the grammar does not parse: {wanted} is missing {} bytes before its end",
            self.rest.len()
        ))
    }

    fn rule(&mut self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| self.add(name, None))
    }

    fn add(&mut self, name: &str, alternatives: Option<Vec<Vec<Item>>>) -> usize {
        self.names.push(name.to_owned());
        self.rules.push(alternatives);
        self.rules.len() - 1
    }

    fn take(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
        while self.rest.starts_with('#') {
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest.trim_start());
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_letter(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn alternatives(&mut self) -> Result<Vec<Vec<Item>>> {
        let mut all = vec![Vec::new()];
        loop {
            self.skip_space();
            let begin = self.rest;
            if self.take("|") {
                all.push(Vec::new());
                continue;
            }
            let mut items = match begin.chars().next() {
                Some('"') => self.literal()?,
                Some('[') => vec![self.class()?],
                Some('.') => {
                    self.take(".");
                    vec![Item::Bytes(Box::new([true; 256]))]
                }
                Some('(') => {
                    self.take("(");
                    let inner = self.alternatives()?;
                    if !self.take(")") {
                        return Err(self.wrong("`)`"));
                    }
                    vec![Item::Rule(self.add("", Some(inner)))]
                }
                _ => {
                    let Some(name) = self.name() else { return Ok(all) };
                    self.skip_space();
                    if self.rest.starts_with("::=") {
                        self.rest = begin;
                        return Ok(all);
                    }
                    vec![Item::Rule(self.rule(name))]
                }
            };
            items = self.repeated(items)?;
            if let Some(last) = all.last_mut() {
                last.append(&mut items);
            }
        }
    }

    fn repeated(&mut self, items: Vec<Item>) -> Result<Vec<Item>> {
        let (least, most) = if self.take("*") {
            (0, None)
        } else if self.take("+") {
            (1, None)
        } else if self.take("?") {
            (0, Some(1))
        } else if self.take("{") {
            let (range, rest) = self.rest.split_once('}').ok_or_else(|| self.wrong("`}`"))?;
            let number =
                |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n <= MOST_FRAMES);
            let (least, most) = range.split_once(',').unwrap_or((range, range));
            let least = number(least).ok_or_else(|| self.wrong("a number of repetitions"))?;
            let most = if most.trim().is_empty() {
                None
            } else {
                Some(number(most).unwrap_or(least).max(least))
            };
            self.rest = rest;
            (least, most)
        } else {
            return Ok(items);
        };
        let mut all: Vec<Item> = (0..least).flat_map(|_| items.clone()).collect();
        match most {
            None => {
                let again = self.add("", None);
                self.rules[again] =
                    Some(vec![[items.as_slice(), &[Item::Rule(again)]].concat(), Vec::new()]);
                all.push(Item::Rule(again));
            }
            Some(most) => {
                let mut tail = Vec::new();
                for _ in least..most {
                    tail = vec![Item::Rule(
                        self.add("", Some(vec![[items.clone(), tail].concat(), Vec::new()])),
                    )];
                }
                all.append(&mut tail);
            }
        }
        Ok(all)
    }

    fn literal(&mut self) -> Result<Vec<Item>> {
        self.take("\"");
        let mut items = Vec::new();
        while !self.take("\"") {
            for byte in self.character()?.to_string().into_bytes() {
                let mut bytes = [false; 256];
                bytes[usize::from(byte)] = true;
                items.push(Item::Bytes(Box::new(bytes)));
            }
        }
        // One item, so that a repetition behind it means all of it.
        Ok(vec![Item::Rule(self.add("", Some(vec![items])))])
    }

    fn class(&mut self) -> Result<Item> {
        self.take("[");
        let negated = self.take("^");
        let mut bytes = [false; 256];
        while !self.take("]") {
            let first = self.character()?;
            let last = if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take("-");
                self.character()?
            } else {
                first
            };
            if !first.is_ascii() || !last.is_ascii() {
                return Err(error(
                    Status::Unsupported,
                    "this plugin's classes hold only ASCII characters",
                ));
            }
            (first..=last).for_each(|c| bytes[c as usize] = true);
        }
        Ok(Item::Bytes(Box::new(if negated { bytes.map(|byte| !byte) } else { bytes })))
    }

    /// One character of a literal or class, perhaps escaped.
    fn character(&mut self) -> Result<char> {
        let mut chars = self.rest.chars();
        let mut found = chars.next().ok_or_else(|| self.wrong("an end quote or bracket"))?;
        if found == '\\' {
            found = match chars.next().ok_or_else(|| self.wrong("an escaped character"))? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' => {
                    let digits = chars
                        .as_str()
                        .get(..2)
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    chars.nth(1);
                    digits
                        .filter(u8::is_ascii)
                        .map(char::from)
                        .ok_or_else(|| self.wrong("two hexadecimal digits"))?
                }
                other => other,
            };
        }
        self.rest = chars.as_str();
        Ok(found)
    }
}
