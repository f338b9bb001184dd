//! The words of an action, and the text between actions.

use serde_json::Value;

/// A word, and whether it follows the one before without a space: `$x.Name` is one operand, `$x .Name` two.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) what: What,
    pub(super) glued: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// `.` alone.
    Dot,
    /// `.Name`.
    Field(String),
    /// `$name`; empty: `$`.
    Variable(String),
    Literal(Value),
    Word(String),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// A template, read from its beginning: text, then an action, and so on.
#[derive(Debug)]
pub(super) struct Source<'a>(pub(super) &'a str);

impl Source<'_> {
    /// The text up to the next action, and that action's tokens; none at the end. Comments have no tokens.
    pub(super) fn next(&mut self) -> Result<(String, Option<Vec<Token>>), String> {
        let Some(start) = self.0.find("{{") else {
            return Ok((std::mem::take(&mut self.0).to_owned(), None));
        };
        let (mut text, after) = (&self.0[..start], &self.0[start + 2..]);
        let end = end_of(after).ok_or("the template has a '{{' without its '}}'")?;
        let mut action = &after[..end];
        self.0 = &after[end + 2..];
        // `{{-` and `-}}` eat the white space beside them.
        if let Some(trimmed) = action.strip_prefix('-').filter(|t| t.starts_with(char::is_whitespace)) {
            action = trimmed;
            text = text.trim_end();
        }
        if let Some(trimmed) = action.strip_suffix('-').filter(|t| t.ends_with(char::is_whitespace)) {
            action = trimmed;
            self.0 = self.0.trim_start();
        }
        let action = action.trim();
        let tokens = if action.starts_with("/*") && action.ends_with("*/") {
            Vec::new()
        } else {
            match tokens(action)? {
                none if none.is_empty() => return Err("the template has an empty '{{}}'".into()),
                some => some,
            }
        };
        Ok((text.to_owned(), Some(tokens)))
    }
}

/// Where an action's `}}` is: not within quotes, nor within a comment.
fn end_of(text: &str) -> Option<usize> {
    if text.trim_start_matches('-').trim_start().starts_with("/*") {
        let comment = text.find("*/")?;
        return text[comment..].find("}}").map(|n| comment + n);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    // An unclosed quote is told as such where the action is read.
    quote.and_then(|_| text.find("}}"))
}

fn tokens(action: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = action;
    loop {
        let trimmed = rest.trim_start();
        let glued = trimmed.len() == rest.len() && !out.is_empty();
        rest = trimmed;
        if rest.is_empty() {
            return Ok(out);
        }
        let (what, length) = token(action, rest)?;
        out.push(Token { what, glued });
        rest = &rest[length..];
    }
}

fn token(action: &str, rest: &str) -> Result<(What, usize), String> {
    let first = rest.chars().next().unwrap_or(' ');
    Ok(match first {
        '"' => quoted(rest).ok_or_else(|| unclosed(action))?,
        '`' => {
            let close = rest[1..].find('`').ok_or_else(|| unclosed(action))?;
            (What::Literal(rest[1..=close].into()), close + 2)
        }
        '(' => (What::Open, 1),
        ')' => (What::Close, 1),
        '|' => (What::Pipe, 1),
        ',' => (What::Comma, 1),
        '=' => (What::Assign, 1),
        ':' if rest.starts_with(":=") => (What::Declare, 2),
        '.' => match name(&rest[1..], is_of_a_field) {
            "" => (What::Dot, 1),
            name => (What::Field(name.to_owned()), 1 + name.len()),
        },
        '$' => {
            let name = name(&rest[1..], is_of_a_word);
            (What::Variable(name.to_owned()), 1 + name.len())
        }
        '0'..='9' | '+' | '-' => {
            let text = name(rest, |c| c.is_ascii_alphanumeric() || "+-._".contains(c));
            let number = number(text).ok_or_else(|| format!("'{text}' is no number"))?;
            (What::Literal(number), text.len())
        }
        _ => match name(rest, is_of_a_word) {
            "" => return Err(format!("'{action}' has a '{first}' that means nothing in templates")),
            word => (literal(word).unwrap_or_else(|| What::Word(word.to_owned())), word.len()),
        },
    })
}

fn unclosed(action: &str) -> String {
    format!("'{action}' has an unclosed quote")
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// More than Go's: `.Networks.my-bridge` and `.Ports.80/tcp` are clear enough.
fn is_of_a_field(c: char) -> bool {
    is_of_a_word(c) || c == '-' || c == '/'
}

fn name(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !belongs(c)).unwrap_or(text.len())]
}

fn number(text: &str) -> Option<Value> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Value::from)
}

fn literal(word: &str) -> Option<What> {
    let value = match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "nil" => Value::Null,
        _ => return None,
    };
    Some(What::Literal(value))
}

/// `"a\"b"`: Go's escapes that people use.
fn quoted(rest: &str) -> Option<(What, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((What::Literal(out.into()), at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}
