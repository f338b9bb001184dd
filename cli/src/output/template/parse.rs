//! From tokens to nodes.

use serde_json::Value;

use super::LABEL;
use super::tokens::{Source, Token, What};

/// How deep blocks and brackets may be within one another.
const DEEPEST: usize = 32;

#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// A value that is printed, or kept in a variable.
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

#[derive(Debug, PartialEq)]
pub(super) struct Branch {
    pub(super) what: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `$a, $b := command | command`.
#[derive(Debug, PartialEq, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `:=` rather than `=`.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, PartialEq, Clone)]
pub(super) enum Operand {
    Literal(Value),
    Function(String),
    /// Fields of something; none: that itself.
    Path {
        from: From,
        names: Vec<String>,
    },
}

impl Operand {
    /// Whether it is docker's method of a row that looks a label up.
    pub(super) fn is_label(&self) -> bool {
        matches!(self, Self::Path { names, .. } if names.last().is_some_and(|name| name == LABEL))
    }
}

#[derive(Debug, PartialEq, Clone)]
pub(super) enum From {
    Dot,
    /// Empty: what the template was given.
    Variable(String),
    Brackets(Box<Pipeline>),
}

/// What ends a block.
#[derive(Debug, PartialEq)]
enum Ending {
    Input,
    End,
    /// With what stands behind `else`.
    Else(Vec<Token>),
}

/// A whole template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, String> {
    match block(&mut Source(text), 0)? {
        (nodes, Ending::Input) => Ok(nodes),
        _ => Err("the template has an {{end}} or {{else}} that belongs to nothing".into()),
    }
}

fn block(source: &mut Source<'_>, depth: usize) -> Result<(Vec<Node>, Ending), String> {
    if depth > DEEPEST {
        return Err("the template is nested too deeply".into());
    }
    let mut nodes = Vec::new();
    loop {
        let (text, action) = source.next()?;
        if !text.is_empty() {
            nodes.push(Node::Text(text));
        }
        let Some(mut tokens) = action else { return Ok((nodes, Ending::Input)) };
        let keyword = match tokens.first().map(|t| &t.what) {
            Some(What::Word(word)) => word.clone(),
            Some(_) => String::new(),
            None => continue,
        };
        match keyword.as_str() {
            "end" => return Ok((nodes, Ending::End)),
            "else" => return Ok((nodes, Ending::Else(tokens.split_off(1)))),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" | "with" | "range" => {
                nodes.push(branch(source, &keyword, &tokens[1..], depth)?);
            }
            "template" | "define" | "block" => {
                return Err(format!("{{{{{keyword}}}}} is not supported in templates here"));
            }
            _ => nodes.push(Node::Print(pipeline(&tokens)?)),
        }
    }
}

/// `{{if}}`, `{{with}}` and `{{range}}` up to their `{{end}}`; `{{else if}}` is an `{{if}}` within the `{{else}}`.
fn branch(source: &mut Source<'_>, keyword: &str, what: &[Token], depth: usize) -> Result<Node, String> {
    let what = pipeline(what)?;
    let (body, ending) = block(source, depth + 1)?;
    let unended = || format!("the template's {{{{{keyword}}}}} has no {{{{end}}}}");
    let otherwise = match ending {
        Ending::End => Vec::new(),
        Ending::Input => return Err(unended()),
        Ending::Else(rest) => match rest.first().map(|t| &t.what) {
            None => match block(source, depth + 1)? {
                (nodes, Ending::End) => nodes,
                (_, Ending::Input) => return Err(unended()),
                (_, Ending::Else(_)) => return Err("the template has two {{else}} of one block".into()),
            },
            Some(What::Word(word)) if matches!(word.as_str(), "if" | "with") => {
                // It is ended by the same {{end}}.
                vec![branch(source, word, &rest[1..], depth + 1)?]
            }
            Some(_) => return Err("only 'if' and 'with' may follow 'else' in a template".into()),
        },
    };
    let branch = Branch { what, body, otherwise };
    Ok(match keyword {
        "if" => Node::If(branch),
        "with" => Node::With(branch),
        _ => Node::Range(branch),
    })
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut rest = tokens;
    let out = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(out) } else { Err("the template has a ')' without its '('".into()) }
}

/// Reads up to the end or a closing bracket, which is left.
fn commands(rest: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > DEEPEST {
        return Err("the template is nested too deeply".into());
    }
    let (variables, declares) = variables(rest)?;
    let mut commands = vec![Vec::new()];
    while let Some(token) = rest.first() {
        match &token.what {
            What::Close => break,
            What::Pipe => commands.push(Vec::new()),
            _ => {
                let operand = operand(rest, depth)?;
                if let Some(last) = commands.last_mut() {
                    last.push(operand);
                }
                continue;
            }
        }
        *rest = &rest[1..];
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("the template has an action without a value".into());
    }
    Ok(Pipeline { variables, declares, commands })
}

/// `$a :=`, `$a, $b :=`, `$a =`; nothing is taken when there is none.
fn variables(rest: &mut &[Token]) -> Result<(Vec<String>, bool), String> {
    let words: Vec<&What> = rest.iter().take(4).map(|t| &t.what).collect();
    let (names, declares, taken) = match words.as_slice() {
        [What::Variable(a), What::Declare, ..] => (vec![a.clone()], true, 2),
        [What::Variable(a), What::Assign, ..] => (vec![a.clone()], false, 2),
        [What::Variable(a), What::Comma, What::Variable(b), What::Declare] => {
            (vec![a.clone(), b.clone()], true, 4)
        }
        _ => return Ok((Vec::new(), false)),
    };
    if names.iter().any(String::is_empty) {
        return Err("a template cannot give '$' another value".into());
    }
    *rest = &rest[taken..];
    Ok((names, declares))
}

fn operand(rest: &mut &[Token], depth: usize) -> Result<Operand, String> {
    let Some((first, after)) = rest.split_first() else {
        return Err("the template has an action without a value".into());
    };
    *rest = after;
    let mut names = Vec::new();
    let from = match &first.what {
        What::Literal(value) => return Ok(Operand::Literal(value.clone())),
        What::Word(word) => return Ok(Operand::Function(word.clone())),
        What::Dot => From::Dot,
        What::Field(name) => {
            names.push(name.clone());
            From::Dot
        }
        What::Variable(name) => From::Variable(name.clone()),
        What::Open => {
            let inner = commands(rest, depth + 1)?;
            let Some((Token { what: What::Close, .. }, after)) = rest.split_first() else {
                return Err("the template has a '(' without its ')'".into());
            };
            *rest = after;
            From::Brackets(Box::new(inner))
        }
        _ => return Err("the template has a ',' or '=' where a value is expected".into()),
    };
    while let Some((Token { what: What::Field(name), glued: true }, after)) = rest.split_first() {
        names.push(name.clone());
        *rest = after;
    }
    Ok(Operand::Path { from, names })
}
