//! `--format` and `-q` of lists and inspections.

use serde_json::Value;

use super::table;
use super::template::{Template, visible};

/// What a list is shown as.
#[derive(Debug)]
pub enum Format {
    /// docker's columns.
    Table,
    /// One JSON object a line.
    Json,
    /// Only the ids or names.
    Quiet,
    /// A template for each row.
    Template(Template),
    /// A template, aligned, with titles.
    TableTemplate(Template),
}

impl Format {
    /// Reads `--format`; `quiet` is about docker's table only, a template says itself what is shown.
    pub fn parse(text: Option<&str>, quiet: bool) -> Result<Self, String> {
        match text {
            None | Some("" | "table") if quiet => Ok(Self::Quiet),
            None | Some("" | "table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(rest) => Template::parse(rest).map(Self::TableTemplate),
                None => Template::parse(text).map(Self::Template),
            },
        }
    }

    /// Shows rows. `columns` are title and key of docker's table; `id` is the key that -q prints.
    pub fn show(&self, rows: &[Value], columns: &[(&str, &str)], id: &str) -> Result<String, String> {
        let mut out = String::new();
        match self {
            Self::Table => {
                let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
                let cells = |row: &Value| columns.iter().map(|(_, key)| text(&row[*key])).collect();
                let lines: Vec<Vec<String>> = std::iter::once(titles).chain(rows.iter().map(cells)).collect();
                out = table::layout(&lines);
            }
            Self::Json => {
                for row in rows {
                    out.push_str(&visible(row).to_string());
                    out.push('\n');
                }
            }
            Self::Quiet => {
                for row in rows {
                    out.push_str(&text(&row[id]));
                    out.push('\n');
                }
            }
            Self::Template(template) => {
                for row in rows {
                    out.push_str(&template.render(row)?);
                    out.push('\n');
                }
            }
            Self::TableTemplate(template) => {
                let mut lines: Vec<Vec<String>> = vec![cells(&template.titles(columns))];
                for row in rows {
                    lines.push(cells(&template.render(row)?));
                }
                out = table::layout(&lines);
            }
        }
        Ok(out)
    }
}

/// Shows a long list of which only the cells that are printed are made.
pub fn show_cells<T>(
    format: &Format,
    items: &[T],
    columns: &[(&str, &str)],
    id: &str,
    cell: impl Fn(&T, &str) -> String,
    row: impl Fn(&T) -> Value,
) -> Result<String, String> {
    match format {
        Format::Table => {
            let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
            let cells = |item: &T| columns.iter().map(|(_, key)| cell(item, key)).collect();
            let lines: Vec<Vec<String>> = std::iter::once(titles).chain(items.iter().map(cells)).collect();
            Ok(table::layout(&lines))
        }
        Format::Quiet => Ok(items.iter().map(|item| cell(item, id) + "\n").collect()),
        other => other.show(&items.iter().map(row).collect::<Vec<_>>(), columns, id),
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Shows inspected objects: an indented JSON array, or a template (or `json`: compact) for each.
pub fn inspected(format: Option<&str>, objects: &[Value]) -> Result<String, String> {
    match format {
        None | Some("") => serde_json::to_string_pretty(objects).map(|s| s + "\n").map_err(|e| e.to_string()),
        Some("json") => serde_json::to_string(objects).map(|s| s + "\n").map_err(|e| e.to_string()),
        Some(text) => {
            let template = Template::parse(text)?;
            let mut out = String::new();
            for object in objects {
                out.push_str(&template.render(object)?);
                out.push('\n');
            }
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_in_every_format() {
        let rows = [json!({"ID": "a", "Name": "x"}), json!({"ID": "bb", "Name": "y"})];
        let columns = [("ID", "ID"), ("NAME", "Name")];
        let show = |text: Option<&str>, quiet| {
            Format::parse(text, quiet).unwrap().show(&rows, &columns, "ID").unwrap()
        };
        assert_eq!(show(None, false), "ID   NAME\na    x\nbb   y\n");
        assert_eq!(
            show(Some("json"), false),
            "{\"ID\":\"a\",\"Name\":\"x\"}\n{\"ID\":\"bb\",\"Name\":\"y\"}\n"
        );
        assert_eq!(show(None, true), "a\nbb\n");
        assert_eq!(show(Some("{{.Name}}"), false), "x\ny\n");
        assert_eq!(show(Some("{{.Name}}"), true), "x\ny\n");
        assert_eq!(show(Some("table"), true), "a\nbb\n");
        assert_eq!(show(Some("table {{.Name}}\\t{{.ID}}"), false), "NAME   ID\nx      a\ny      bb\n");
    }

    #[test]
    fn a_label_is_looked_up_and_shows_nowhere_else() {
        let labels = json!({"com.example.my-team": "a,b=c"});
        let rows = [json!({"ID": "a", "Label": labels}), json!({"ID": "b", "Label": {}})];
        let show = |text: &str| Format::parse(Some(text), false).unwrap().show(&rows, &[("ID", "ID")], "ID");
        let key = "com.example.my-team";
        assert_eq!(show(&format!("{{{{.ID}}}} {{{{.Label \"{key}\"}}}}")).unwrap(), "a a,b=c\nb \n");
        assert_eq!(show(&format!("{{{{if .Label \"{key}\"}}}}yes{{{{end}}}}")).unwrap(), "yes\n\n");
        assert_eq!(show(&format!("{{{{.Label \"{key}\" | upper}}}}")).unwrap(), "A,B=C\n\n");
        let table = show(&format!("table {{{{.ID}}}}\t{{{{.Label \"{key}\"}}}}")).unwrap();
        assert!(table.starts_with("ID   my team\n"), "{table}");
        for text in ["json", "{{json .}}"] {
            assert_eq!(show(text).unwrap(), "{\"ID\":\"a\"}\n{\"ID\":\"b\"}\n");
        }
    }

    #[test]
    fn an_inspection_is_an_array() {
        let objects = [json!({"Id": "a"})];
        assert_eq!(inspected(Some("json"), &objects).unwrap(), "[{\"Id\":\"a\"}]\n");
        assert!(inspected(None, &objects).unwrap().starts_with("[\n  {\n"));
        assert_eq!(inspected(Some("{{.Id}}"), &objects).unwrap(), "a\n");
    }
}
