//! Extended attributes, without overlay's own. An attribute that looks like one of those is kept under an escaped name
//! (`overlay.overlay.`), as overlayfs does since Linux 6.7, so that overlays nest.

use std::ffi::CString;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::CowFs;
use crate::at::At;
use crate::types::Ino;

impl CowFs {
    fn xattr_name(&self, name: &[u8]) -> Result<CString, Errno> {
        if !self.xattrs {
            return Err(Errno::OPNOTSUPP);
        }
        let escaped = match name.strip_prefix(self.attr.prefix.as_bytes()) {
            Some(rest) => [self.attr.prefix.as_bytes(), b"overlay.", rest].concat(),
            None => name.to_vec(),
        };
        CString::new(escaped).map_err(|_| Errno::INVAL)
    }

    /// getxattr(2): the value. ENODATA if there is none. overlay's own names are hidden (kernel: overlay.overlay. escapes).
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = self.xattr_name(name)?;
        self.ask(ino, |at| at.xattr_strict(&name))
    }

    /// listxattr(2): names, each followed by a zero byte.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        if !self.xattrs {
            return Err(Errno::OPNOTSUPP);
        }
        let all = self.ask(ino, At::xattrs)?;
        let mut shown = Vec::with_capacity(all.len());
        for name in all.split_inclusive(|b| *b == 0) {
            match name.strip_prefix(self.attr.prefix.as_bytes()) {
                None => shown.extend_from_slice(name),
                Some(own) => {
                    if let Some(rest) = own.strip_prefix(b"overlay.") {
                        shown.extend_from_slice(self.attr.prefix.as_bytes());
                        shown.extend_from_slice(rest);
                    }
                }
            }
        }
        Ok(shown)
    }

    /// setxattr(2) with XATTR_CREATE or XATTR_REPLACE in `flags`.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let shown = name;
        let name = self.xattr_name(name)?;
        self.copy_up(ino)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        self.locate(ino)?.0.set_xattr(&name, value, flags)?;
        self.acl_changed(ino, shown);
        Ok(())
    }

    /// removexattr(2).
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        let shown = name;
        let name = self.xattr_name(name)?;
        match self.locate(ino)?.0.xattr_strict(&name) {
            // One that is not there is no reason to copy up; of an ACL, removing none is fine.
            Err(Errno::NODATA) if shown.starts_with(b"system.posix_acl_") => return Ok(()),
            other => drop(other?),
        }
        self.copy_up(ino)?;
        self.locate(ino)?.0.remove_xattr(&name)?;
        self.acl_changed(ino, shown);
        Ok(())
    }

    fn acl_changed(&self, ino: Ino, name: &[u8]) {
        if name == b"system.posix_acl_default"
            && let Some(dir) = self.table().dir_mut(ino)
        {
            dir.default_acl = None;
        }
    }
}
