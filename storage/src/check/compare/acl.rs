//! POSIX ACLs and modes are two views of one thing (acl(5)): setting an ACL sets the permission bits, and one that says
//! no more than those bits is not kept as an attribute.

use std::collections::BTreeMap;

use crate::check::expected::Wanted;

const ACCESS: &[u8] = b"system.posix_acl_access";

/// The attributes and the mode that a file has after its attributes were set.
pub(super) fn effective(wanted: &Wanted) -> (BTreeMap<Vec<u8>, Vec<u8>>, u32) {
    let mut xattrs = wanted.xattrs.clone();
    let mut mode = wanted.mode;
    if let Some((bits, minimal)) = xattrs.get(ACCESS).and_then(|acl| bits(acl)) {
        mode = mode & !0o777 | bits;
        if minimal {
            xattrs.remove(ACCESS);
        }
    }
    (xattrs, mode)
}

/// Permission bits of an ACL in the kernel's form (linux/posix_acl_xattr.h), and whether it says no more than them.
fn bits(acl: &[u8]) -> Option<(u32, bool)> {
    let entries = acl.strip_prefix(&2u32.to_le_bytes())?;
    let (mut user, mut group, mut mask, mut other, mut minimal) = (None, None, None, None, true);
    for entry in entries.chunks(8) {
        let &[t0, t1, p0, p1, ..] = entry else { return None };
        let perm = Some(u32::from(u16::from_le_bytes([p0, p1])) & 7);
        match u16::from_le_bytes([t0, t1]) {
            0x01 => user = perm,
            0x04 => group = perm,
            0x20 => other = perm,
            tag => {
                minimal = false;
                if tag == 0x10 {
                    mask = perm;
                }
            }
        }
    }
    Some((user? << 6 | mask.or(group)? << 3 | other?, minimal))
}

#[cfg(test)]
mod tests {
    use super::bits;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut out = 2u32.to_le_bytes().to_vec();
        for (tag, perm) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(perm.to_le_bytes());
            out.extend(u32::MAX.to_le_bytes());
        }
        out
    }

    #[test]
    fn the_mask_stands_for_the_group() {
        assert_eq!(bits(&acl(&[(1, 6), (4, 4), (0x20, 0)])), Some((0o640, true)));
        assert_eq!(bits(&acl(&[(1, 7), (2, 6), (4, 4), (0x10, 6), (0x20, 5)])), Some((0o765, false)));
        assert_eq!(bits(&acl(&[(1, 7)])), None);
        assert_eq!(bits(b"nonsense"), None);
    }
}
