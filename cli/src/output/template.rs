//! The part of Go's templates that people use with `--format`: fields, `json`, `index`, `len`, `join`, `upper`, `lower`, `println`,
//! `range`, `if`/`else`, and `$`. Parsing is pure; the data is JSON.

use serde_json::Value;

/// A parsed template.
#[derive(Debug, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, PartialEq)]
enum Node {
    Text(String),
    Print(Vec<Term>),
    Range { over: Vec<Term>, body: Vec<Node>, otherwise: Vec<Node> },
    If { what: Vec<Term>, body: Vec<Node>, otherwise: Vec<Node> },
}

/// A word of an action.
#[derive(Debug, PartialEq, Clone)]
enum Term {
    /// `.A.B`; `$` means the data that the template was given.
    Path {
        root: bool,
        names: Vec<String>,
    },
    Literal(Value),
    Word(String),
    Pipe,
}

/// What ends a block.
#[derive(Debug, PartialEq)]
enum Ending {
    Input,
    End,
    Else,
}

impl Template {
    /// Parses a `--format` text. `\t` and `\n` written out mean the characters, as docker takes them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        match block(&mut rest, 0)? {
            (nodes, Ending::Input) => Ok(Self(nodes)),
            _ => Err("the template has an {{end}} or {{else}} that belongs to nothing".into()),
        }
    }

    /// Applies it to one object.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, data, data, &mut out)?;
        Ok(out)
    }

    /// The names of the top-level fields, for the titles of `table ...`.
    pub fn titles(&self) -> String {
        let title = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            Node::Print(terms) => terms
                .iter()
                .find_map(|t| match t {
                    Term::Path { names, .. } => names.last().cloned(),
                    _ => None,
                })
                .map(|n| spaced(&n))
                .unwrap_or_default(),
            _ => String::new(),
        };
        self.0.iter().map(title).collect()
    }
}

/// `RunningFor` as the title that docker gives it.
fn spaced(name: &str) -> String {
    match name {
        "ID" => "ID".into(),
        "RunningFor" | "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        _ => name.to_ascii_uppercase(),
    }
}

fn block(rest: &mut &str, depth: usize) -> Result<(Vec<Node>, Ending), String> {
    if depth > 32 {
        return Err("the template is nested too deeply".into());
    }
    let mut nodes = Vec::new();
    loop {
        let Some(start) = rest.find("{{") else {
            push_text(&mut nodes, rest);
            *rest = "";
            return Ok((nodes, Ending::Input));
        };
        let after = &rest[start + 2..];
        let end = after.find("}}").ok_or("the template has a '{{' without its '}}'")?;
        let (mut text, mut action) = (&rest[..start], &after[..end]);
        *rest = &after[end + 2..];
        // `{{-` and `-}}` eat the white space beside them.
        if let Some(trimmed) = action.strip_prefix("- ") {
            action = trimmed;
            text = text.trim_end();
        }
        if let Some(trimmed) = action.strip_suffix(" -") {
            action = trimmed;
            *rest = rest.trim_start();
        }
        push_text(&mut nodes, text);
        let mut terms = terms(action)?;
        let keyword = match terms.first() {
            Some(Term::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" => return Ok((nodes, Ending::End)),
            "else" => return Ok((nodes, Ending::Else)),
            "range" | "if" => {
                terms.remove(0);
                let (body, ending) = block(rest, depth + 1)?;
                let (otherwise, ending) =
                    if ending == Ending::Else { block(rest, depth + 1)? } else { (Vec::new(), ending) };
                if ending != Ending::End {
                    return Err(format!("the template's {{{{{keyword}}}}} has no {{{{end}}}}"));
                }
                nodes.push(if keyword == "range" {
                    Node::Range { over: terms, body, otherwise }
                } else {
                    Node::If { what: terms, body, otherwise }
                });
            }
            _ => nodes.push(Node::Print(terms)),
        }
    }
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    if !text.is_empty() {
        nodes.push(Node::Text(text.to_owned()));
    }
}

fn terms(action: &str) -> Result<Vec<Term>, String> {
    let mut out = Vec::new();
    let mut rest = action.trim();
    while !rest.is_empty() {
        let first = rest.chars().next().unwrap_or(' ');
        let end = match first {
            '"' | '`' => {
                let close =
                    rest[1..].find(first).ok_or_else(|| format!("'{action}' has an unclosed quote"))?;
                out.push(Term::Literal(Value::String(rest[1..=close].to_owned())));
                close + 2
            }
            '|' => {
                out.push(Term::Pipe);
                1
            }
            '(' | ')' => return Err(format!("'{action}': brackets are not supported in templates here")),
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(rest.len());
                out.push(word(&rest[..end]));
                end
            }
        };
        rest = rest[end..].trim_start();
    }
    if out.is_empty() { Err("the template has an empty '{{}}'".into()) } else { Ok(out) }
}

fn word(text: &str) -> Term {
    let root = text.starts_with('$');
    let path = text.strip_prefix('$').unwrap_or(text);
    if path.starts_with('.') || (root && path.is_empty()) {
        let names = path.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        return Term::Path { root, names };
    }
    text.parse::<i64>().map_or_else(|_| Term::Word(text.to_owned()), |n| Term::Literal(n.into()))
}

fn render(nodes: &[Node], dot: &Value, root: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(terms) => out.push_str(&show(&evaluate(terms, dot, root)?)),
            Node::If { what, body, otherwise } => {
                let chosen = if truth(&evaluate(what, dot, root)?) { body } else { otherwise };
                render(chosen, dot, root, out)?;
            }
            Node::Range { over, body, otherwise } => {
                let items: Vec<Value> = match evaluate(over, dot, root)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, v)| v).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("range cannot go over {}", show(&other))),
                };
                if items.is_empty() {
                    render(otherwise, dot, root, out)?;
                }
                for item in &items {
                    render(body, item, root, out)?;
                }
            }
        }
    }
    Ok(())
}

fn evaluate(terms: &[Term], dot: &Value, root: &Value) -> Result<Value, String> {
    let mut piped: Option<Value> = None;
    for part in terms.split(|t| *t == Term::Pipe) {
        let (function, operands) = match part {
            [Term::Word(name), rest @ ..] => (Some(name.as_str()), rest),
            rest => (None, rest),
        };
        let mut values = Vec::new();
        for term in operands {
            values.push(match term {
                Term::Path { root: from_root, names } => lookup(if *from_root { root } else { dot }, names)?,
                Term::Literal(value) => value.clone(),
                Term::Word(word) => return Err(format!("the template does not know '{word}'")),
                Term::Pipe => Value::Null,
            });
        }
        values.extend(piped.take());
        piped = Some(match function {
            Some(name) => call(name, &values)?,
            None if values.len() == 1 => values.remove(0),
            None => return Err("the template has an action that is not one value".into()),
        });
    }
    Ok(piped.unwrap_or(Value::Null))
}

fn lookup(from: &Value, names: &[String]) -> Result<Value, String> {
    let mut at = from;
    for name in names {
        at = match at {
            Value::Object(map) => map.get(name).ok_or_else(|| unknown(name, map))?,
            _ => return Err(format!("the template asks for .{name} of something that has no fields")),
        };
    }
    Ok(at.clone())
}

fn unknown(name: &str, map: &serde_json::Map<String, Value>) -> String {
    if let Some(near) = map.keys().find(|k| k.eq_ignore_ascii_case(name)) {
        return format!("there is no field .{name}: .{near} is meant?");
    }
    let known: Vec<String> = map.keys().map(|k| format!(".{k}")).collect();
    format!("there is no field .{name}; known: {}", known.join(" "))
}

fn call(name: &str, values: &[Value]) -> Result<Value, String> {
    match (name, values) {
        ("json", [value]) => Ok(Value::String(value.to_string())),
        ("upper", [value]) => Ok(show(value).to_uppercase().into()),
        ("lower", [value]) => Ok(show(value).to_lowercase().into()),
        ("println", _) => Ok(format!("{}\n", values.iter().map(show).collect::<Vec<_>>().join(" ")).into()),
        ("len", [Value::Array(a)]) => Ok(a.len().into()),
        ("len", [Value::Object(o)]) => Ok(o.len().into()),
        ("len", [Value::String(s)]) => Ok(s.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("join", [Value::Array(a), Value::String(by)]) => {
            Ok(a.iter().map(show).collect::<Vec<_>>().join(by).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("split", [Value::String(s), Value::String(by)]) => {
            Ok(s.split(by.as_str()).map(Value::from).collect::<Vec<_>>().into())
        }
        ("not", [value]) => Ok((!truth(value)).into()),
        ("eq", [a, b]) => Ok((a == b).into()),
        ("ne", [a, b]) => Ok((a != b).into()),
        ("index", [first, keys @ ..]) if !keys.is_empty() => {
            let mut at = first.clone();
            for key in keys {
                at = match (&at, key) {
                    (Value::Object(map), Value::String(k)) => map.get(k).cloned().unwrap_or(Value::Null),
                    (Value::Array(list), Value::Number(n)) => n
                        .as_u64()
                        .and_then(|n| list.get(n as usize).cloned())
                        .ok_or_else(|| format!("index {n} is out of range"))?,
                    (Value::Null, _) => Value::Null,
                    _ => return Err("index wants a map and a text, or a list and a number".into()),
                };
            }
            Ok(at)
        }
        _ => Err(format!("the template's function '{name}' is unknown, or has other arguments")),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// As Go prints it: lists in brackets with spaces, maps as `map[k:v]`.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(s) => s.clone(),
        Value::Array(a) => format!("[{}]", a.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(o) => {
            format!(
                "map[{}]",
                o.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect::<Vec<_>>().join(" ")
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(text: &str) -> Result<String, String> {
        let data = json!({
            "ID": "abc", "State": {"Status": "running", "Pid": 7, "Paused": false}, "Env": ["A=1", "B=2"],
            "Networks": {"a": {"IP": "1"}, "b": {"IP": "2"}}, "Labels": {"x.y": "z"}, "None": null,
        });
        Template::parse(text)?.render(&data)
    }

    #[test]
    fn what_people_write() {
        for (text, expected) in [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}\\t{{.State.Status}}", "abc\trunning"),
            ("{{json .State}}", r#"{"Paused":false,"Pid":7,"Status":"running"}"#),
            ("{{.Env}}", "[A=1 B=2]"),
            ("{{.Labels}}", "map[x.y:z]"),
            (r#"{{index .Labels "x.y"}}"#, "z"),
            ("{{index .Env 1}}", "B=2"),
            ("{{len .Env}}", "2"),
            (r#"{{join .Env ","}}"#, "A=1,B=2"),
            ("{{range .Networks}}{{.IP}};{{end}}", "1;2;"),
            ("{{range .Networks}}{{$.ID}}{{end}}", "abcabc"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{if .State.Paused}}p{{else}}r{{end}}", "r"),
            ("{{.ID | upper}}", "ABC"),
            ("{{range .Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            ("a {{- .ID -}} b", "a{{"),
        ] {
            if expected == "a{{" {
                assert_eq!(run("a {{- .ID }} b").unwrap(), "aabc b");
                assert_eq!(run("a {{ .ID -}} b").unwrap(), "a abcb");
                continue;
            }
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        assert!(run("{{.Id}}").unwrap_err().contains(".ID is meant"));
        assert!(run("{{.Nope}}").unwrap_err().contains("known: .Env"));
        for bad in [
            "{{",
            "{{}}",
            "{{range .Env}}",
            "{{end}}",
            "{{foo .ID}}",
            "{{.ID .ID}}",
            "{{\"x}}",
            "{{index .Env 9}}",
        ] {
            assert!(run(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn titles_come_from_the_fields() {
        assert_eq!(Template::parse("{{.ID}}\\t{{.Names}}").unwrap().titles(), "ID\tNAMES");
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\{\\{|\\}\\}|range|if|end|else|json|index|\\.|\\$| |[A-Za-z\"|(é-]){0,20}") {
            let _ = run(&text);
        }
    }
}
