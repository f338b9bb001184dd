//! Where a directory says that its lower parts are (the xattr `overlay.redirect`): the value is somebody else's, and is followed only if it
//! stays within the layers.

use std::ffi::CString;

/// Where a directory's lower parts are looked for.
#[derive(Debug)]
pub(super) enum Below {
    /// Beside the parent's, by this name.
    Name(CString),
    /// At a path from the root of each layer.
    Path(Vec<u8>),
}

/// Whether an attribute's value may be followed: absolute without `.`, `..` or empty parts, or one name.
pub(super) fn is_redirect(path: &[u8]) -> bool {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let good = |n: &[u8]| !n.is_empty() && n != b"." && n != b".." && n.len() <= 255 && !n.contains(&0);
    if path.len() == relative.len() {
        good(path) && !path.contains(&b'/')
    } else {
        relative.split(|b| *b == b'/').all(good)
    }
}

/// What a redirect says.
pub(super) fn below_of(path: Vec<u8>) -> Option<Below> {
    if path.first() == Some(&b'/') {
        return Some(Below::Path(path));
    }
    CString::new(path).ok().map(Below::Name)
}

/// The names in a path.
pub(super) fn parts_of(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::name_of;
    use proptest::prelude::*;

    #[test]
    fn redirects_are_absolute_or_one_name() {
        for good in [&b"a"[..], b"/a", b"/a/b", b"...", b"/.a/..b", b"\xff"] {
            assert!(is_redirect(good), "{good:?}");
        }
        for bad in [
            &b""[..],
            b"/",
            b"//",
            b"a/b",
            b"/a/",
            b"/a//b",
            b".",
            b"..",
            b"/..",
            b"/a/../b",
            b"/a/.",
            b"a\0",
        ] {
            assert!(!is_redirect(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_redirect_is_followed_by_names_or_refused(bytes: Vec<u8>, text in "[/.a]{0,12}", long in "/?a{250,260}") {
            for path in [&bytes[..], text.as_bytes(), long.as_bytes()] {
                if !is_redirect(path) {
                    continue;
                }
                match below_of(path.to_vec()) {
                    Some(Below::Name(name)) => prop_assert_eq!(name_of(path).unwrap(), name),
                    Some(Below::Path(whole)) => {
                        let parts = parts_of(&whole);
                        prop_assert!(!parts.is_empty());
                        for part in &parts {
                            prop_assert!(name_of(part).is_ok());
                        }
                        let joined: Vec<u8> = parts.iter().flat_map(|p| [b"/", &p[..]].concat()).collect();
                        prop_assert_eq!(joined, path);
                    }
                    None => prop_assert!(false, "{:?} leads nowhere", path),
                }
            }
        }
    }
}
