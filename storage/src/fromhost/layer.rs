//! Writing a collection as a layer's tar.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Collection, Node};

impl Collection {
    /// Writes the tar: sorted by path, owned by root, directories and links dated 1970, files by their own time.
    pub fn write_tar(&self, out: impl Write) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        for (path, node) in &self.nodes {
            let name = path.strip_prefix("/").unwrap_or(path);
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match node {
                Node::Directory(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    builder.append_data(&mut header, name.join(""), io::empty())?;
                }
                Node::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, name, target)?;
                }
                Node::Text(text) => {
                    header.set_mode(0o644);
                    header.set_size(text.len() as u64);
                    builder.append_data(&mut header, name, text.as_slice())?;
                }
                Node::File => append_file(&mut builder, &mut header, path, name)?,
            }
        }
        builder.into_inner()?.flush()
    }
}

fn append_file(
    builder: &mut tar::Builder<impl Write>,
    header: &mut tar::Header,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    let with_path = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(with_path)?;
    let meta = file.metadata().map_err(with_path)?;
    header.set_mode(meta.permissions().mode() & 0o7777);
    header.set_mtime(meta.mtime().max(0) as u64);
    header.set_size(meta.len());
    // A file that grows meanwhile must not break the archive.
    builder.append_data(header, name, io::Read::take(file, meta.len()))
}
