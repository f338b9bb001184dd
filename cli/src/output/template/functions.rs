//! Functions: Go's own that make sense here, and docker's (`json`, `join`, `split`, `title`, `upper`, `lower`, `pad`, `truncate`).

use std::cmp::Ordering;

use serde_json::Value;

use super::verbs::format;

/// Calls one.
pub(super) fn call(name: &str, values: &[Value]) -> Result<Value, String> {
    match (name, values) {
        ("json", [value]) => Ok(Value::String(value.to_string())),
        ("upper", [value]) => Ok(show(value).to_uppercase().into()),
        ("lower", [value]) => Ok(show(value).to_lowercase().into()),
        ("title", [value]) => Ok(title(&show(value)).into()),
        ("print", _) => Ok(printed(values).into()),
        ("println", _) => Ok(format!("{}\n", values.iter().map(show).collect::<Vec<_>>().join(" ")).into()),
        ("printf", [Value::String(text), rest @ ..]) => Ok(format(text, rest).into()),
        ("len", [value]) => length(value),
        ("join", [Value::Array(a), Value::String(by)]) => {
            Ok(a.iter().map(show).collect::<Vec<_>>().join(by).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("split", [Value::String(s), Value::String(by)]) => {
            Ok(s.split(by.as_str()).map(Value::from).collect::<Vec<_>>().into())
        }
        ("truncate", [Value::String(s), n]) => Ok(s.chars().take(count(n)?).collect::<String>().into()),
        ("pad", [Value::String(s), before, after]) => pad(s, count(before)?, count(after)?),
        ("slice", [value, ends @ ..]) => slice(value, ends),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("and" | "or", [first, rest @ ..]) => {
            let stop = |v: &&Value| truth(v) == (name == "or");
            let all = || std::iter::once(first).chain(rest);
            Ok(all().find(stop).or(all().last()).cloned().unwrap_or(Value::Null))
        }
        ("eq", [a, rest @ ..]) if !rest.is_empty() => Ok(rest.iter().any(|b| equal(a, b)).into()),
        ("ne", [a, b]) => Ok((!equal(a, b)).into()),
        ("lt" | "le" | "gt" | "ge", [a, b]) => compare(name, a, b),
        ("index", [first, keys @ ..]) if !keys.is_empty() => index(first, keys),
        _ => Err(format!("the template's function '{name}' is unknown, or has other arguments")),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::Array(a) => Ok(a.len().into()),
        Value::Object(o) => Ok(o.len().into()),
        Value::String(s) => Ok(s.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(format!("len cannot be told of {}", show(other))),
    }
}

fn index(first: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut at = first.clone();
    for key in keys {
        at = match (&at, key) {
            (Value::Object(map), Value::String(k)) => map.get(k).cloned().unwrap_or_else(|| {
                // As Go does it: the empty value of the map's own kind. Labels that are not there are empty texts.
                if map.values().all(Value::is_string) { "".into() } else { Value::Null }
            }),
            (Value::Array(list), Value::Number(n)) => n
                .as_u64()
                .and_then(|n| list.get(usize::try_from(n).ok()?).cloned())
                .ok_or_else(|| format!("index {n} is out of range: there are {}", list.len()))?,
            (Value::Null, _) => Value::Null,
            _ => return Err("index wants a map and a text, or a list and a number".into()),
        };
    }
    Ok(at)
}

/// `slice .ID 0 12`: from the first number up to the second, which is not in it.
fn slice(value: &Value, ends: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::String(s) => s.len(),
        Value::Array(a) => a.len(),
        other => return Err(format!("slice cannot cut {}", show(other))),
    };
    let (from, to) = match ends {
        [] => (0, length),
        [from] => (count(from)?, length),
        [from, to] => (count(from)?, count(to)?),
        _ => return Err("slice wants two numbers at most".into()),
    };
    let outside = || format!("slice {from} {to} is out of range: there are {length}");
    match value {
        Value::String(s) => s.get(from..to).map(Value::from).ok_or_else(outside),
        Value::Array(a) => a.get(from..to).map(|part| part.to_vec().into()).ok_or_else(outside),
        _ => Err(outside()),
    }
}

/// docker's: blanks before and behind, but of nothing nothing is made.
fn pad(text: &str, before: usize, after: usize) -> Result<Value, String> {
    const MOST: usize = 1000;
    if before > MOST || after > MOST {
        return Err(format!("pad adds {MOST} blanks at most"));
    }
    if text.is_empty() {
        return Ok("".into());
    }
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into())
}

fn count(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| format!("the template has '{}' where a number from 0 is expected", show(value)))
}

/// The first letter of each word.
fn title(text: &str) -> String {
    let mut starts = true;
    text.chars()
        .flat_map(|c| {
            let upper = std::mem::replace(&mut starts, c.is_whitespace()) && !c.is_whitespace();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// Go's Sprint: blanks only where neither side is a text.
fn printed(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&show(value));
    }
    out
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => x.total_cmp(&y) == Ordering::Equal,
        _ => a == b,
    }
}

fn compare(name: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let order = match (a, b) {
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Number(x), Value::Number(y)) => {
            x.as_f64().unwrap_or_default().total_cmp(&y.as_f64().unwrap_or_default())
        }
        _ => return Err(format!("'{name}' compares two numbers or two texts")),
    };
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }
    .into())
}

/// What `if` takes for yes.
pub(super) fn truth(value: &Value) -> bool {
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
pub(super) fn show(value: &Value) -> String {
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
