//! Records on disk.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;

use super::{Record, Table};
use crate::failure::{At, PathError};
use crate::trash::Trash;

const NAME: &str = "record.json";

/// Reads all records; directories without a whole one are thrown away.
pub(super) fn read_all(dir: &Path, trash: &Trash) -> Result<Table, PathError> {
    std::fs::create_dir_all(dir).at("create", dir)?;
    let mut table = Table::default();
    for entry in std::fs::read_dir(dir).at("read", dir)? {
        let entry = entry.at("read", dir)?;
        let number = entry.file_name().to_str().and_then(|n| n.parse::<u64>().ok());
        let record = std::fs::read(entry.path().join(NAME))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            .filter(|r| Some(r.number) == number && !table.by_name.contains_key(&r.name));
        let Some(record) = record else {
            trash.discard(&entry.path())?;
            continue;
        };
        table.next = table.next.max(record.number);
        if !record.parent.is_empty() {
            *table.children.entry(record.parent.clone()).or_default() += 1;
        }
        table.by_name.insert(record.name.clone(), record);
    }
    Ok(table)
}

/// Replaces the record of a directory; it survives kill -9.
pub(super) fn write(dir: &Path, record: &Record) -> Result<(), PathError> {
    stage(dir, record)?;
    rename(dir)
}

/// The same, and it survives a power cut.
pub(super) fn write_durably(dir: &Path, record: &Record) -> Result<(), PathError> {
    let staged = stage(dir, record)?;
    staged.sync_all().at("sync", &dir.join(NAME))?;
    rename(dir)?;
    File::open(dir).and_then(|d| d.sync_all()).at("sync", dir)
}

fn stage(dir: &Path, record: &Record) -> Result<File, PathError> {
    let path = dir.join(".record.json");
    let bytes = serde_json::to_vec(record).expect("a record of strings and numbers is JSON");
    let mut file = File::create(&path).at("create", &path)?;
    file.write_all(&bytes).at("write", &path)?;
    Ok(file)
}

fn rename(dir: &Path) -> Result<(), PathError> {
    let path = dir.join(".record.json");
    std::fs::rename(&path, dir.join(NAME)).at("rename", &path)
}

/// Writes everything on the file system of a directory to the disk.
pub(super) fn sync_file_system(dir: &Path) -> Result<(), PathError> {
    let open = File::open(dir).at("open", dir)?;
    rustix::fs::syncfs(open.as_fd()).at("sync", dir)
}
