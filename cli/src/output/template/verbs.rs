//! `printf`: `%s`, `%v`, `%d`, `%t`, `%q`, `%x`, `%f`, `%%`, with `-`, `0`, a width and a precision.

use serde_json::Value;

use super::functions::show;

/// The widest field; what is above is taken as this.
const WIDEST: usize = 1000;

/// Puts values into a text. Mistakes show in the text, as Go shows them.
pub(super) fn format(text: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let spec = rest.find(|c: char| !(c.is_ascii_digit() || "-+ #.".contains(c)));
        let Some((spec, verb)) = spec.and_then(|n| Some((&rest[..n], rest[n..].chars().next()?))) else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &rest[spec.len() + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&filled(spec, verb, value)),
            None => {
                out.extend(["%!", verb.encode_utf8(&mut [0; 4]), "(MISSING)"]);
            }
        }
    }
    out.push_str(rest);
    let left: Vec<String> = values.map(show).collect();
    if !left.is_empty() {
        out.extend(["%!(EXTRA ", &left.join(", "), ")"]);
    }
    out
}

fn filled(spec: &str, verb: char, value: &Value) -> String {
    let (width, precision) = spec.split_once('.').map_or((spec, None), |(w, p)| (w, Some(p)));
    let precision = precision.map(|p| p.parse().unwrap_or(0).min(WIDEST));
    let digits = width.trim_start_matches(|c: char| "-+ #0".contains(c));
    let flags = &width[..width.len() - digits.len()];
    let width: usize = digits.parse().unwrap_or(0).min(WIDEST);
    let text = one(verb, precision, value);
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        return text + &" ".repeat(missing);
    }
    let filler = if flags.contains('0') && value.is_number() { "0" } else { " " };
    filler.repeat(missing) + &text
}

fn one(verb: char, precision: Option<usize>, value: &Value) -> String {
    let shown = show(value);
    match (verb, value) {
        ('s' | 'v', Value::String(_)) => match precision {
            Some(most) => shown.chars().take(most).collect(),
            None => shown,
        },
        ('v', _)
        | ('d', Value::Number(_))
        | ('t', Value::Bool(_))
        | ('s', Value::Array(_) | Value::Object(_) | Value::Null) => shown,
        ('q', Value::String(text)) => format!("{text:?}"),
        ('x', Value::Number(n)) if n.is_i64() || n.is_u64() => n
            .as_u64()
            .map_or_else(|| format!("-{:x}", n.as_i64().unwrap_or(0).unsigned_abs()), |n| format!("{n:x}")),
        ('f', Value::Number(n)) => format!("{:.*}", precision.unwrap_or(6), n.as_f64().unwrap_or(0.0)),
        _ => format!("%!{verb}({shown})"),
    }
}
