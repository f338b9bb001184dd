//! Images in lists and inspections.

use davit_contracts::storage::{History, Image, ImageConfig, InspectImageResponse};
use serde_json::{Value, json};

use crate::output::words;

/// docker's columns of `images`.
pub const COLUMNS: [(&str, &str); 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// The same with digests.
pub const DIGEST_COLUMNS: [(&str, &str); 6] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// docker's columns of `history`.
pub const HISTORY_COLUMNS: [(&str, &str); 5] = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// Repository and tag of a familiar reference: `reg:5000/a:1` is `reg:5000/a` and `1`.
pub fn split(reference: &str) -> (&str, &str) {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "<none>"),
    }
}

/// One row for each name of the image; one without a name for an image that has none.
pub fn rows(image: &Image, now: i64, no_trunc: bool) -> Vec<Value> {
    let row = |repository: &str, tag: &str| {
        let digest = image
            .digests
            .iter()
            .find(|d| d.split('@').next() == Some(repository))
            .and_then(|d| d.split_once('@'))
            .map_or("<none>", |(_, digest)| digest);
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": if no_trunc { image.id.as_str() } else { words::short(&image.id) },
            "CreatedAt": words::listed(image.created_unix_ns),
            "CreatedSince": words::ago(image.created_unix_ns, now),
            "Size": words::size(image.size),
            "VirtualSize": words::size(image.size),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": image.containers.to_string(),
        })
    };
    if image.references.is_empty() {
        return vec![row("<none>", "<none>")];
    }
    image
        .references
        .iter()
        .map(|reference| {
            let (repository, tag) = split(reference);
            row(repository, tag)
        })
        .collect()
}

/// docker's object of an image.
pub fn inspect(answer: &InspectImageResponse) -> Value {
    let image = answer.image.clone().unwrap_or_default();
    let config = answer.config.clone().unwrap_or_default();
    let platform = image.platform.clone().unwrap_or_default();
    let parsed: Value = serde_json::from_str(&answer.config_json).unwrap_or_default();
    let text = |key: &str| parsed[key].as_str().unwrap_or_default().to_owned();
    json!({
        "Id": image.id,
        "RepoTags": image.references,
        "RepoDigests": image.digests,
        "Created": words::rfc3339(image.created_unix_ns),
        "Author": text("author"),
        "Comment": answer.history.first().map(|h| h.comment.clone()).unwrap_or_default(),
        "Os": platform.os,
        "Architecture": platform.architecture,
        "Variant": platform.variant,
        "Size": image.size,
        "Config": config_of(&config),
        "GraphDriver": {"Name": answer.driver, "Data": null},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
    })
}

fn config_of(c: &ImageConfig) -> Value {
    let set = |list: &[String]| -> Value {
        list.iter().map(|p| (p.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    json!({
        "Env": c.env,
        "Cmd": list(&c.cmd),
        "Entrypoint": list(&c.entrypoint),
        "WorkingDir": c.working_dir,
        "User": c.user,
        "ExposedPorts": set(&c.exposed_ports),
        "Volumes": set(&c.volumes),
        "Labels": c.labels,
        "StopSignal": c.stop_signal,
        "Shell": list(&c.shell),
    })
}

/// A row of `history`.
pub fn history_row(h: &History, now: i64, no_trunc: bool) -> Value {
    let by = h.created_by.replace(['\t', '\n'], " ");
    let id = match h.image_id.as_str() {
        "" => "<missing>",
        id if no_trunc => id,
        id => words::short(id),
    };
    json!({
        "ID": id,
        "CreatedAt": words::rfc3339(h.created_unix_ns),
        "CreatedSince": words::ago(h.created_unix_ns, now),
        "CreatedBy": if no_trunc { by } else { words::cut(&by, 45) },
        "Size": words::size(h.size),
        "Comment": h.comment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(split("busybox:latest"), ("busybox", "latest"));
        assert_eq!(split("reg:5000/a"), ("reg:5000/a", "<none>"));
        assert_eq!(split("reg:5000/a:1"), ("reg:5000/a", "1"));
        assert_eq!(split("a@sha256:00"), ("a", "<none>"));
    }

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = Image {
            id: format!("sha256:{}", "b".repeat(64)),
            references: vec!["a:1".into(), "c:2".into()],
            digests: vec!["a@sha256:dd".into()],
            size: 4_500_000,
            ..Image::default()
        };
        let rows = rows(&image, 0, false);
        assert_eq!((&rows[1]["Repository"], &rows[1]["ID"]), (&json!("c"), &json!("bbbbbbbbbbbb")));
        assert_eq!((&rows[0]["Digest"], &rows[1]["Digest"]), (&json!("sha256:dd"), &json!("<none>")));
        let nameless = Image { references: Vec::new(), ..image };
        assert_eq!(super::rows(&nameless, 0, true)[0]["Tag"], "<none>");
    }
}
