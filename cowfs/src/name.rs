//! Names of the overlay format, and how layer tars spell them. Pure.

/// The prefix of a whiteout's file name in a layer tar.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The file name that makes its directory opaque in a layer tar.
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are aufs's own and mean nothing.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// The value of the opaque xattr.
pub const OPAQUE_VALUE: &[u8] = b"y";

/// The value of the opaque xattr of a directory that may hold whiteouts spelt as xattrs (Linux 6.7). It hides nothing by itself.
pub const XATTR_WHITEOUTS_VALUE: &[u8] = b"x";

/// Device numbers of a whiteout: a character device 0:0.
pub const WHITEOUT_RDEV: (u32, u32) = (0, 0);

/// The xattr namespace that a layer store uses throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.*`: needs CAP_SYS_ADMIN in the initial user namespace.
    Trusted,
    /// `user.overlay.*`: overlayfs mounted with `userxattr` (Linux 5.11).
    User,
}

impl Namespace {
    /// The xattr that marks an opaque directory.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// The xattr that says where a renamed directory was.
    pub fn redirect(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.redirect",
            Self::User => "user.overlay.redirect",
        }
    }

    /// The name of one of overlay's other xattrs: `impure`, `origin`, `metacopy`, `nlink`, `whiteout`.
    pub fn xattr(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// What all of overlay's xattrs begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// The overlayfs mount option that selects this namespace, when one is needed.
    pub fn mount_option(self) -> Option<&'static str> {
        match self {
            Self::Trusted => None,
            Self::User => Some("userxattr"),
        }
    }
}

/// Whether an xattr belongs to overlayfs itself. An image must never set one: it could redirect a directory or forge
/// a whiteout.
pub fn is_reserved_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// What a file name in a layer tar means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarName<'a> {
    /// An ordinary name.
    Plain,
    /// Hides this name of the layers below.
    Whiteout(&'a [u8]),
    /// Makes the directory that holds it opaque.
    Opaque,
    /// aufs's bookkeeping (`.wh..wh.plnk`, `.wh..wh.aufs`): to be left out.
    Ignored,
    /// A whiteout of nothing or of the directory itself: refused.
    Invalid,
}

/// Tells what the last component of a layer tar's path means.
pub fn tar_name(name: &[u8]) -> TarName<'_> {
    if name == OPAQUE_MARKER {
        return TarName::Opaque;
    }
    if name.starts_with(AUFS_PREFIX) {
        return TarName::Ignored;
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        None => TarName::Plain,
        Some(b"" | b"." | b"..") => TarName::Invalid,
        Some(hidden) => TarName::Whiteout(hidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_told_from_plain_names() {
        assert_eq!(tar_name(b"etc"), TarName::Plain);
        assert_eq!(tar_name(b".wh"), TarName::Plain);
        assert_eq!(tar_name(b"a.wh.b"), TarName::Plain);
        assert_eq!(tar_name(b".wh.passwd"), TarName::Whiteout(b"passwd"));
        assert_eq!(tar_name(b".wh..hidden"), TarName::Whiteout(b".hidden"));
        assert_eq!(tar_name(b".wh..wh..opq"), TarName::Opaque);
        assert_eq!(tar_name(b".wh..wh.plnk"), TarName::Ignored);
    }

    #[test]
    fn a_whiteout_of_nothing_or_of_the_directory_is_invalid() {
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(tar_name(bad), TarName::Invalid, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn overlay_xattrs_are_reserved_in_both_namespaces() {
        assert!(is_reserved_xattr(b"trusted.overlay.redirect"));
        assert!(is_reserved_xattr(b"user.overlay.opaque"));
        assert!(!is_reserved_xattr(b"user.overlayx"));
        assert!(!is_reserved_xattr(b"security.capability"));
        assert_eq!(Namespace::User.mount_option(), Some("userxattr"));
        assert!(is_reserved_xattr(Namespace::Trusted.redirect().as_bytes()));
    }
}
