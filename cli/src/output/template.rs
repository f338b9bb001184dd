//! Go's templates, as people use them with `--format`: fields, variables, brackets, pipes, `if`, `with`, `range`, and the functions
//! of Go and docker. Parsing is pure; the data is JSON.
//!
//! ```text
//! tokens    the words of an action
//! parse     nodes of them
//! evaluate  text of nodes and data
//! functions what `json`, `index`, `join` and the others do
//! verbs     `printf`
//! ```

mod evaluate;
mod functions;
mod parse;
mod tokens;
mod verbs;

#[cfg(test)]
mod tests;

use serde_json::Value;

use parse::{From, Node, Operand, Pipeline};

/// The key under which a row has its labels for `.Label "key"`: a method of docker's, so it shows nowhere as a field.
pub const LABEL: &str = "Label";

/// A row without what only methods look at.
pub fn visible(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(fields) = row.as_object_mut().filter(|fields| fields.get(LABEL).is_some_and(Value::is_object))
    {
        fields.remove(LABEL);
    }
    row
}

/// A parsed template.
#[derive(Debug, PartialEq)]
pub struct Template(Vec<Node>);

impl Template {
    /// Parses a `--format` text. `\t` and `\n` written out mean the characters, as docker takes them.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::template(&text.replace("\\t", "\t").replace("\\n", "\n")).map(Self)
    }

    /// Applies it to one object.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        evaluate::render(&self.0, data)
    }

    /// The titles of `table ...`: docker's of a column, else the name of the field.
    pub fn titles(&self, columns: &[(&str, &str)]) -> String {
        let title = |name: &str| {
            let known = columns.iter().find(|(_, key)| *key == name);
            known.map_or_else(|| spaced(name), |(title, _)| (*title).to_owned())
        };
        let of = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            Node::Print(pipeline) => {
                label(pipeline).or_else(|| field(pipeline).map(title)).unwrap_or_default()
            }
            _ => String::new(),
        };
        self.0.iter().map(of).collect()
    }
}

/// The first field that a pipeline is about.
fn field(pipeline: &Pipeline) -> Option<&str> {
    pipeline.commands.iter().flatten().find_map(|operand| match operand {
        Operand::Path { from: From::Brackets(inner), names } => {
            names.last().map(String::as_str).or_else(|| field(inner))
        }
        Operand::Path { names, .. } => names.last().map(String::as_str),
        _ => None,
    })
}

/// The title of a label's column, by docker: the last part of its key.
fn label(pipeline: &Pipeline) -> Option<String> {
    match pipeline.commands.first()?.as_slice() {
        [method, Operand::Literal(Value::String(key))] if method.is_label() => {
            Some(key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " "))
        }
        _ => None,
    }
}

/// `RunningFor` as the title that docker gives it.
fn spaced(name: &str) -> String {
    match name {
        "RunningFor" | "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        _ => name.to_ascii_uppercase(),
    }
}
