//! The log option `tag`: docker's template of a container's names.

use davit_contracts::runtime::Container;

use crate::error::RuntimeError;

const KNOWN: &str = "{{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}}, {{.ImageFullID}}, {{.ImageName}}, {{.Command}} and {{.DaemonName}}";

/// Puts names in place of `{{.Name}}` and the like; without a container only the template is checked.
pub fn expand(template: &str, container: Option<&Container>) -> Result<String, RuntimeError> {
    let none = Container::default();
    let c = container.unwrap_or(&none);
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, inside)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((field, after)) = inside.split_once("}}") else {
            return Err(RuntimeError::Invalid(format!(
                "invalid log opt tag={template}: a '{{{{' is not closed"
            )));
        };
        out.push_str(&value(field.trim(), c).ok_or_else(|| {
            RuntimeError::Invalid(format!(
                "invalid log opt tag={template}: {{{{{field}}}}} is not known, {KNOWN} are"
            ))
        })?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(field: &str, c: &Container) -> Option<String> {
    let short = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect();
    Some(match field {
        ".ID" => short(&c.id),
        ".FullID" => c.id.clone(),
        ".Name" => c.name.clone(),
        ".ImageID" => short(&c.image_id),
        ".ImageFullID" => c.image_id.clone(),
        ".ImageName" => c.image.clone(),
        ".Command" => c.argv.join(" "),
        ".DaemonName" => "davit".to_owned(),
        _ => return None,
    })
}
