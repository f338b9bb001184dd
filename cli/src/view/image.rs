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

/// A line of a list: an image under one of its names.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    image: &'a Image,
    repository: &'a str,
    tag: &'a str,
    digest: &'a str,
}

const NONE: &str = "<none>";

/// One line for each tag of the image; with `digests` one for each digest, too. A repository that is known by a digest only
/// has a line without a tag, and an image without any name has one.
pub fn lines(image: &Image, digests: bool) -> Vec<Line<'_>> {
    let pinned = || image.digests.iter().filter_map(|d| d.split_once('@'));
    let line = |repository, tag, digest| Line { image, repository, tag, digest };
    let mut out = Vec::with_capacity(image.references.len().max(1));
    for (repository, tag) in image.references.iter().map(|r| split(r)) {
        let mut own = pinned().filter(|(r, _)| digests && *r == repository).peekable();
        if own.peek().is_none() {
            out.push(line(repository, tag, NONE));
        }
        out.extend(own.map(|(_, digest)| line(repository, tag, digest)));
    }
    let mut untagged: Vec<Line<'_>> = Vec::new();
    for (repository, digest) in pinned() {
        let tagged = image.references.iter().any(|r| split(r).0 == repository);
        if !tagged && (digests || !untagged.iter().any(|l| l.repository == repository)) {
            untagged.push(line(repository, NONE, if digests { digest } else { NONE }));
        }
    }
    out.extend(untagged);
    if out.is_empty() {
        out.push(line(NONE, NONE, NONE));
    }
    out
}

impl Line<'_> {
    /// The image's id in full.
    pub fn id(&self) -> &str {
        &self.image.id
    }

    /// What a column or placeholder shows. Only what is asked for is worded: lists may be long.
    pub fn cell(&self, key: &str, now: i64, no_trunc: bool) -> String {
        let image = self.image;
        match key {
            "Repository" => self.repository.to_owned(),
            "Tag" => self.tag.to_owned(),
            "Digest" => self.digest.to_owned(),
            "ID" => (if no_trunc { image.id.as_str() } else { words::short(&image.id) }).to_owned(),
            "CreatedAt" => words::listed(image.created_unix_ns),
            "CreatedSince" => words::ago(image.created_unix_ns, now),
            "Size" | "VirtualSize" => words::size(image.size),
            "Containers" => image.containers.to_string(),
            _ => "N/A".to_owned(),
        }
    }

    /// docker's placeholders.
    pub fn row(&self, now: i64, no_trunc: bool) -> Value {
        const KEYS: [&str; 11] = [
            "Repository",
            "Tag",
            "Digest",
            "ID",
            "CreatedAt",
            "CreatedSince",
            "Size",
            "VirtualSize",
            "SharedSize",
            "UniqueSize",
            "Containers",
        ];
        let cells = KEYS.iter().map(|key| ((*key).to_owned(), self.cell(key, now, no_trunc).into()));
        Value::Object(cells.collect())
    }
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
        "Parent": "",
        "Comment": answer.history.first().map(|h| h.comment.clone()).unwrap_or_default(),
        "Created": words::rfc3339(image.created_unix_ns),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config_of(&config),
        "Architecture": platform.architecture,
        "Variant": platform.variant,
        "Os": platform.os,
        "Size": image.size,
        "GraphDriver": {"Name": answer.driver, "Data": null},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": words::rfc3339(answer.last_tag_unix_ns)},
    })
}

fn config_of(c: &ImageConfig) -> Value {
    let set = |list: &[String]| -> Value {
        list.iter().map(|p| (p.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    json!({
        "User": c.user,
        "ExposedPorts": set(&c.exposed_ports),
        "Env": c.env,
        "Cmd": list(&c.cmd),
        "Healthcheck": c.healthcheck.as_ref().map(|h| json!({
            "Test": h.test,
            "Interval": h.interval_ns,
            "Timeout": h.timeout_ns,
            "StartPeriod": h.start_period_ns,
            "Retries": h.retries,
        })),
        "Volumes": set(&c.volumes),
        "Entrypoint": list(&c.entrypoint),
        "WorkingDir": c.working_dir,
        "Labels": c.labels,
        "StopSignal": c.stop_signal,
        "Shell": list(&c.shell),
    })
}

/// A row of `history`; without `human` sizes are bytes and moments are given instead of ages.
pub fn history_row(h: &History, now: i64, no_trunc: bool, human: bool) -> Value {
    let by = h.created_by.replace(['\t', '\n'], " ");
    let id = match h.image_id.as_str() {
        "" => "<missing>",
        id if no_trunc => id,
        id => words::short(id),
    };
    let at = words::rfc3339(h.created_unix_ns);
    json!({
        "ID": id,
        "CreatedSince": if human { words::ago(h.created_unix_ns, now) } else { at.clone() },
        "CreatedAt": at,
        "CreatedBy": if no_trunc { by } else { words::cut(&by, 45) },
        "Size": if human { words::size(h.size) } else { h.size.to_string() },
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
        let cells = |image: &Image, digests, keys: [&str; 3]| -> Vec<String> {
            lines(image, digests).iter().map(|l| keys.map(|k| l.cell(k, 0, false)).join(" ")).collect()
        };
        let keys = ["Repository", "Tag", "Digest"];
        assert_eq!(cells(&image, false, keys), ["a 1 <none>", "c 2 <none>"]);
        assert_eq!(cells(&image, true, keys), ["a 1 sha256:dd", "c 2 <none>"]);
        assert_eq!(cells(&image, false, ["ID", "Size", "SharedSize"])[1], "bbbbbbbbbbbb 4.5MB N/A");
        let pinned = Image { references: vec!["c:2".into()], ..image.clone() };
        assert_eq!(cells(&pinned, false, keys), ["c 2 <none>", "a <none> <none>"]);
        assert_eq!(cells(&pinned, true, keys), ["c 2 <none>", "a <none> sha256:dd"]);
        let nameless = Image { references: Vec::new(), digests: Vec::new(), ..image };
        assert_eq!(cells(&nameless, true, keys), ["<none> <none> <none>"]);
        assert_eq!(lines(&nameless, false)[0].row(0, true)["ID"], nameless.id);
    }

    #[test]
    fn a_history_is_for_people_or_exact() {
        let h = History { size: 1500, created_unix_ns: 1_000_000_000, ..History::default() };
        let row = history_row(&h, 61_000_000_000, false, true);
        assert_eq!((&row["Size"], &row["CreatedSince"]), (&json!("1.5kB"), &json!("About a minute ago")));
        let row = history_row(&h, 61_000_000_000, false, false);
        assert_eq!(row["Size"], "1500");
        assert_eq!(row["CreatedSince"], "1970-01-01T00:00:01.000000000Z");
        assert_eq!(row["ID"], "<missing>");
    }
}
