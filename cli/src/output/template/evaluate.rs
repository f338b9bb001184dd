//! From nodes and data to text.

use serde_json::{Map, Value};

use super::functions::{call, show, truth};
use super::parse::{Branch, From, Node, Operand, Pipeline};
use super::visible;

/// Maps whose keys are people's: what they do not have is no mistake of the template, as with docker.
const PEOPLES: [&str; 11] = [
    "Labels",
    "Options",
    "Networks",
    "Ports",
    "PortBindings",
    "ExposedPorts",
    "Containers",
    "Sysctls",
    "Tmpfs",
    "AuxiliaryAddresses",
    "Volumes",
];

/// What goes on after a node.
#[derive(Debug, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A template under way: what it was given, and its variables, the innermost last.
pub(super) struct Rendering<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Applies nodes to data.
pub(super) fn render(nodes: &[Node], root: &Value) -> Result<String, String> {
    let mut me = Rendering { root, variables: Vec::new(), out: String::new() };
    me.nodes(nodes, root)?;
    Ok(me.out)
}

impl Rendering<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&show(&value));
                    }
                    Flow::Next
                }
                Node::If(branch) => self.scoped(|me| {
                    let chosen = truth(&me.pipeline(&branch.what, dot)?);
                    me.nodes(if chosen { &branch.body } else { &branch.otherwise }, dot)
                })?,
                Node::With(branch) => self.scoped(|me| {
                    let value = me.pipeline(&branch.what, dot)?;
                    if truth(&value) {
                        me.nodes(&branch.body, &value)
                    } else {
                        me.nodes(&branch.otherwise, dot)
                    }
                })?,
                Node::Range(branch) => self.scoped(|me| me.range(branch, dot))?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Variables end with the block that they were made in.
    fn scoped<T>(&mut self, block: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.variables.len();
        let out = block(self);
        self.variables.truncate(before);
        out
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, String> {
        let items: Vec<(Value, Value)> = match self.commands(&branch.what, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(n, v)| (n.into(), v)).collect(),
            Value::Object(map) => map.into_iter().map(|(k, v)| (k.into(), v)).collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("range cannot go over {}", show(&other))),
        };
        if items.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        for (key, item) in &items {
            let names = match branch.what.variables.as_slice() {
                [] => vec![],
                [one] => vec![(one.clone(), item.clone())],
                [first, second, ..] => vec![(first.clone(), key.clone()), (second.clone(), item.clone())],
            };
            let flow = self.scoped(|me| {
                me.variables.extend(names);
                me.nodes(&branch.body, item)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// The value, which is also kept when the pipeline has a variable.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        match pipeline.variables.as_slice() {
            [] => {}
            [name] if pipeline.declares => self.variables.push((name.clone(), value.clone())),
            [name] => {
                let found = self.variables.iter_mut().rev().find(|(n, _)| n == name);
                found.ok_or_else(|| format!("the template has no variable ${name}"))?.1 = value.clone();
            }
            _ => return Err("two variables at once are for {{range}} only".into()),
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        if let [Operand::Function(name), operands @ ..] = command {
            // What they do not need is not looked at: `and .Health (eq .Health.Status "healthy")`.
            if matches!(name.as_str(), "and" | "or") && piped.is_none() {
                return self.decide(name == "or", operands, dot);
            }
            let mut values = operands.iter().map(|o| self.operand(o, dot)).collect::<Result<Vec<_>, _>>()?;
            values.extend(piped);
            return call(name, &values);
        }
        match (command, piped) {
            ([method, key], None) if method.is_label() => {
                let key = self.operand(key, dot)?;
                label(&self.operand(method, dot)?, &key)
            }
            ([method], Some(key)) if method.is_label() => label(&self.operand(method, dot)?, &key),
            ([one], None) => self.operand(one, dot),
            _ => Err("the template has an action that is not one value".into()),
        }
    }

    fn decide(&mut self, until: bool, operands: &[Operand], dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if truth(&value) == until {
                return Ok(value);
            }
            last = Some(value);
        }
        last.ok_or_else(|| "the template's 'and' or 'or' has nothing to decide about".into())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let (from, names) = match operand {
            Operand::Literal(value) => return Ok(value.clone()),
            // `index .A len` is a mistake, `(len .A)` is meant; a function without operands may stand alone.
            Operand::Function(name) => return call(name, &[]),
            Operand::Path { from, names } => (from, names),
        };
        match from {
            From::Dot => lookup(dot, names),
            From::Variable(name) if name.is_empty() => lookup(self.root, names),
            From::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                lookup(&found.ok_or_else(|| format!("the template has no variable ${name}"))?.1, names)
            }
            From::Brackets(pipeline) => {
                let value = self.scoped(|me| me.pipeline(pipeline, dot))?;
                lookup(&value, names)
            }
        }
    }
}

/// docker's `.Label "key"`: nothing when there is no such label.
fn label(labels: &Value, key: &Value) -> Result<Value, String> {
    let key = key.as_str().ok_or("the template's .Label is followed by a label's key in quotes")?;
    Ok(labels.get(key).cloned().unwrap_or_else(|| "".into()))
}

fn lookup(from: &Value, names: &[String]) -> Result<Value, String> {
    if names.is_empty() {
        return Ok(visible(from));
    }
    let mut at = from;
    let mut inside = "";
    for name in names {
        at = match at {
            Value::Object(map) => match map.get(name) {
                Some(value) => value,
                None if PEOPLES.contains(&inside) => return Ok(Value::Null),
                None => match map.get(in_json(name)) {
                    Some(value) => value,
                    None => return absent(name, map),
                },
            },
            _ => return Err(format!("the template asks for .{name} of something that has no fields")),
        };
        inside = in_json(name);
    }
    Ok(at.clone())
}

/// The name that a field of docker's objects has in their JSON, where a template may have the other.
fn in_json(name: &str) -> &str {
    match name {
        "ID" => "Id",
        "AuxAddress" => "AuxiliaryAddresses",
        _ => name,
    }
}

/// Fields that docker's objects have always, though their JSON has them only when there is something in them.
fn absent(name: &str, map: &Map<String, Value>) -> Result<Value, String> {
    match in_json(name) {
        "Health" => Ok(Value::Null),
        "Gateway" | "IPRange" | "Parent" => Ok("".into()),
        "AuxiliaryAddresses" => Ok(Map::new().into()),
        _ => Err(unknown(name, map)),
    }
}

fn unknown(name: &str, map: &Map<String, Value>) -> String {
    if let Some(near) = map.keys().find(|k| k.eq_ignore_ascii_case(name)) {
        return format!("there is no field .{name}: .{near} is meant?");
    }
    let known: Vec<String> = map.keys().map(|k| format!(".{k}")).collect();
    format!("there is no field .{name}; known: {}", known.join(" "))
}
