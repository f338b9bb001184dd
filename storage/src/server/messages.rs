//! The domain's types as the contract's messages.

use std::collections::{BTreeMap, HashMap};

use davit_contracts::storage as pb;

use crate::filter::Filters;
use crate::image::prepare::Prepared;
use crate::image::{Details, HistoryLine, Summary};
use crate::oci::{self, Platform, RunConfig};
use crate::progress::{Done, Event, Phase};
use crate::snapshot::SnapshotRecord;
use crate::store::Store;
use crate::usage::DiskUsage;
use crate::volume::VolumeRecord;

pub(super) fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn unsorted(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn platform_of(wanted: Option<pb::Platform>) -> Platform {
    let host = Platform::host();
    match wanted {
        None => host,
        Some(p) => Platform {
            os: if p.os.is_empty() { host.os } else { p.os },
            architecture: if p.architecture.is_empty() { host.architecture } else { p.architecture },
            variant: p.variant,
        },
    }
}

pub(super) fn progress(event: Event) -> pb::Progress {
    use pb::progress::Event as Out;
    let event = match event {
        Event::Status(message) => Out::Status(pb::progress::Status { message }),
        Event::Layer { id, phase, current, total } => {
            let phase = match phase {
                Phase::Waiting => pb::progress::Phase::Waiting,
                Phase::Downloading => pb::progress::Phase::Downloading,
                Phase::Unpacking => pb::progress::Phase::Unpacking,
                Phase::Pushing => pb::progress::Phase::Pushing,
                Phase::Exists => pb::progress::Phase::Exists,
                Phase::Done => pb::progress::Phase::Done,
            };
            Out::Layer(pb::progress::Layer { id, phase: phase as i32, current, total })
        }
        Event::Done(done) => Out::Done(image_done(&done)),
    };
    pb::Progress { event: Some(event) }
}

fn image_done(done: &Done) -> pb::ImageDone {
    pb::ImageDone {
        image_id: done.id.to_string(),
        references: done.references.clone(),
        manifest_digest: done.manifest.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(super) fn config(c: &RunConfig) -> pb::ImageConfig {
    pb::ImageConfig {
        env: c.env.clone(),
        entrypoint: c.entrypoint.clone(),
        cmd: c.cmd.clone(),
        working_dir: c.working_dir.clone(),
        user: c.user.clone(),
        exposed_ports: c.exposed_ports.keys().cloned().collect(),
        volumes: c.volumes.keys().cloned().collect(),
        labels: unsorted(&c.labels),
        stop_signal: c.stop_signal.clone(),
        shell: c.shell.clone(),
        healthcheck: c.healthcheck.as_ref().map(|h| pb::HealthCheck {
            test: h.test.clone(),
            interval_ns: h.interval,
            timeout_ns: h.timeout,
            start_period_ns: h.start_period,
            retries: h.retries,
            start_interval_ns: h.start_interval,
        }),
    }
}

/// Both ways in which a client may send filters.
pub(super) fn filters(map: HashMap<String, String>, list: Vec<pb::Filter>) -> Filters {
    Filters::new(map.into_iter().chain(list.into_iter().map(|f| (f.key, f.value))))
}

pub(super) fn image(summary: Summary) -> pb::Image {
    let platform = summary.platform;
    pb::Image {
        id: summary.id.into(),
        references: summary.references,
        digests: summary.digests,
        created_unix_ns: summary.created_unix_ns,
        size: summary.size,
        platform: Some(pb::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
        }),
        diff_ids: summary.diff_ids.into_iter().map(String::from).collect(),
        labels: summary.labels.into_iter().collect(),
        containers: summary.containers,
    }
}

pub(super) fn details(d: Details, driver: &str) -> pb::InspectImageResponse {
    let mut history: Vec<pb::History> = d.history.iter().map(history_line).collect();
    if let Some(top) = history.first_mut() {
        top.references.clone_from(&d.summary.references);
        top.image_id = d.summary.id.to_string();
    }
    pb::InspectImageResponse {
        image: Some(image(d.summary)),
        config: Some(config(&d.config)),
        history,
        config_json: d.config_json,
        manifest_json: d.manifest_json,
        driver: driver.to_owned(),
        last_tag_unix_ns: d.tagged_unix_ns,
    }
}

fn history_line(line: &HistoryLine) -> pb::History {
    pb::History {
        created_unix_ns: oci::unix_ns(&line.entry.created),
        created_by: line.entry.created_by.clone(),
        comment: line.entry.comment.clone(),
        size: line.size,
        empty_layer: line.entry.empty_layer,
        references: Vec::new(),
        image_id: String::new(),
    }
}

pub(super) fn prepared(p: Prepared) -> pb::PrepareResponse {
    pb::PrepareResponse {
        mounts: p
            .mounts
            .into_iter()
            .map(|m| pb::Mount {
                r#type: m.kind.into(),
                source: m.source,
                options: m.options,
                target: String::new(),
            })
            .collect(),
        image_id: p.image.id.to_string(),
        config: Some(config(&p.image.config)),
        driver: p.driver.to_owned(),
        reference: p.record.reference,
    }
}

pub(super) fn snapshot(record: SnapshotRecord) -> pb::Snapshot {
    pb::Snapshot {
        key: record.key,
        image_id: record.image_id.to_string(),
        labels: unsorted(&record.labels),
        created_unix_ns: record.created_unix_ns,
    }
}

pub(super) fn volume(store: &Store, record: &VolumeRecord) -> pb::Volume {
    pb::Volume {
        name: record.name.clone(),
        driver: "local".into(),
        mountpoint: store.volumes.data(&record.name).display().to_string(),
        created_unix_ns: record.created_unix_ns,
        labels: unsorted(&record.labels),
        options: unsorted(&record.options),
        anonymous: record.anonymous,
        users: record.users.clone(),
    }
}

/// Sums, and with `verbose` what they are made of.
pub(super) fn disk_usage(store: &Store, usage: DiskUsage, verbose: bool) -> pb::DiskUsageResponse {
    use pb::disk_usage_response::{ImageUsage, SnapshotUsage, Usage, VolumeUsage};
    let sum = |u: crate::usage::Usage| {
        Some(Usage { count: u.count, active: u.active, bytes: u.bytes, reclaimable: u.reclaimable })
    };
    let mut out = pb::DiskUsageResponse {
        images: sum(usage.images),
        containers: sum(usage.snapshots),
        volumes: sum(usage.volumes),
        blobs: sum(usage.blobs),
        ..pb::DiskUsageResponse::default()
    };
    if verbose {
        let one = |(summary, shared_bytes): (Summary, u64)| ImageUsage {
            unique_bytes: summary.size - shared_bytes,
            shared_bytes,
            image: Some(image(summary)),
        };
        out.image = usage.image.into_iter().map(one).collect();
        out.snapshot = usage.snapshot.into_iter().map(|(key, bytes)| SnapshotUsage { key, bytes }).collect();
        let one = |(v, bytes): (VolumeRecord, u64)| VolumeUsage { volume: Some(volume(store, &v)), bytes };
        out.volume = usage.volume.into_iter().map(one).collect();
    }
    out
}
