//! Where a copied-up file came from, as overlayfs writes it down: the xattr `overlay.origin` holds a file handle of the lower file
//! (`struct ovl_fb`, fs/overlayfs/overlayfs.h).
//!
//! It is read here for one thing, the inode number to show. open_by_handle_at(2) needs CAP_DAC_READ_SEARCH in the initial user
//! namespace; but the common file systems put the inode number into the handle, and it can be read without opening anything.

use davit_sys::file_handle::FileHandle;

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
#[cfg(target_endian = "big")]
const ENDIAN: u8 = 1;
#[cfg(target_endian = "little")]
const ENDIAN: u8 = 0;

/// The handle means the same on all machines.
const ANY_ENDIAN: u8 = 2;

/// FILEID_INO32_GEN: most file systems (inode, generation), and tmpfs (generation, inode in two words).
const INO32_GEN: i32 = 1;
/// FILEID_INO32_GEN_PARENT.
const INO32_GEN_PARENT: i32 = 2;
/// FILEID_BTRFS_WITHOUT_PARENT: object id in 64 bits, root, generation.
const BTRFS: i32 = 0x4d;
/// FILEID_INO32_GEN with XFS_FILEID_TYPE_64FLAG: inode in 64 bits, generation.
const XFS64: i32 = 0x81;

/// The xattr's value for a file of the file system `uuid`.
pub(crate) fn encode(handle: &FileHandle, uuid: [u8; 16]) -> Option<Vec<u8>> {
    let len = u8::try_from(HEADER + handle.bytes.len()).ok()?;
    let kind = u8::try_from(handle.kind).ok()?;
    let mut value = vec![VERSION, MAGIC, len, ENDIAN, kind];
    value.extend_from_slice(&uuid);
    value.extend_from_slice(&handle.bytes);
    Some(value)
}

/// An origin that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) uuid: [u8; 16],
    pub(crate) handle: FileHandle,
}

/// Reads the xattr's value; `None` if it is of another version, another machine or broken.
pub(crate) fn decode(value: &[u8]) -> Option<Origin> {
    if value.len() <= HEADER || value[..2] != [VERSION, MAGIC] || usize::from(value[2]) != value.len() {
        return None;
    }
    if value[3] & 1 != ENDIAN && value[3] & ANY_ENDIAN == 0 {
        return None;
    }
    Some(Origin {
        uuid: value[5..HEADER].try_into().ok()?,
        handle: FileHandle { kind: i32::from(value[4]), bytes: value[HEADER..].to_vec() },
    })
}

/// The inode number in a handle, of the encodings that are known.
pub(crate) fn ino(handle: &FileHandle) -> Option<u64> {
    let word = |at: usize| {
        handle.bytes.get(at * 4..at * 4 + 4).map(|b| u32::from_ne_bytes(b.try_into().expect("4 bytes")))
    };
    let long =
        |at: usize| handle.bytes.get(at..at + 8).map(|b| u64::from_ne_bytes(b.try_into().expect("8 bytes")));
    match (handle.kind, handle.bytes.len()) {
        (INO32_GEN, 12) => Some(u64::from(word(1)?) | u64::from(word(2)?) << 32),
        (INO32_GEN, 8) | (INO32_GEN_PARENT, 16) => word(0).map(u64::from),
        (BTRFS, 20) | (XFS64, 12) => long(0),
        _ => None,
    }
}

/// The name of a hard link's entry in the index: its origin in hexadecimal.
pub(crate) fn index_name(origin: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    origin.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).collect()
}

/// The origin that an entry of the index is named by.
pub(crate) fn of_index_name(name: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if !name.len().is_multiple_of(2) {
        return None;
    }
    name.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_value_comes_back() {
        let handle = FileHandle { kind: INO32_GEN, bytes: vec![7, 0, 0, 0, 1, 2, 3, 4] };
        let value = encode(&handle, [9; 16]).unwrap();
        let read = decode(&value).unwrap();
        assert_eq!(read, Origin { uuid: [9; 16], handle });
        assert_eq!(ino(&read.handle), Some(7));
        assert_eq!(&index_name(&value)[..8], b"00fb1d00");
    }

    #[test]
    fn the_number_in_a_real_handle_is_the_files() {
        for dir in ["/dev/shm", "/var/tmp"] {
            let path = std::path::Path::new(dir).join(format!("davit-origin-{}", std::process::id()));
            std::fs::write(&path, "x").unwrap();
            let parent = std::fs::File::open(dir).unwrap();
            let name = std::ffi::CString::new(path.file_name().unwrap().as_encoded_bytes()).unwrap();
            let handle = davit_sys::file_handle::of(parent.as_fd(), &name).unwrap();
            let number = std::fs::metadata(&path).unwrap().ino();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(ino(&handle), Some(number), "{dir}: {handle:?}");
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for bad in [&b""[..], &[0; 21], &[0, 0xfb, 22, 1, 1], &[1; 40], &[0, 0xfb, 200, 0, 1, 0, 0, 0]] {
            assert_eq!(decode(bad), None);
        }
        assert_eq!(ino(&FileHandle { kind: 0xfe, bytes: vec![0; 30] }), None);
    }

    /// Values that are nearly right, so that more than the first check is met.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![Just(1u8), Just(2), Just(0x4d), Just(0x81), any::<u8>()];
        (kind, 0u8..8, vec(any::<u8>(), 0..48), any::<bool>()).prop_map(|(kind, flags, rest, right)| {
            let len = if right { (5 + rest.len()) as u8 } else { rest.first().copied().unwrap_or(0) };
            [&[VERSION, MAGIC, len, flags, kind][..], &rest].concat()
        })
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(value in prop_oneof![vec(any::<u8>(), 0..300), nearly()]) {
            let Some(origin) = decode(&value) else { return Ok(()) };
            let _ = ino(&origin.handle);
            // What it says of endianness is not kept.
            let again = encode(&origin.handle, origin.uuid).unwrap();
            prop_assert_eq!((&again[..3], &again[4..]), (&value[..3], &value[4..]));
        }

        #[test]
        fn what_is_written_is_read(kind in 0i32..400, bytes in vec(any::<u8>(), 0..300), uuid: [u8; 16]) {
            let handle = FileHandle { kind, bytes };
            let fits = kind < 256 && handle.bytes.len() + HEADER < 256;
            let value = encode(&handle, uuid);
            prop_assert_eq!(value.is_some(), fits);
            if let Some(value) = value.filter(|_| !handle.bytes.is_empty()) {
                prop_assert_eq!(decode(&value), Some(Origin { uuid, handle }));
            }
        }

        #[test]
        fn a_number_is_in_the_handle(kind: i32, bytes in vec(any::<u8>(), 0..40)) {
            if let Some(number) = ino(&FileHandle { kind, bytes: bytes.clone() }) {
                let low = (number as u32).to_ne_bytes();
                prop_assert!(bytes.windows(4).any(|w| w == low));
            }
        }

        #[test]
        fn an_entry_of_the_index_has_one_name(value in vec(any::<u8>(), 0..64), name in "[0-9a-fA-F+x]{0,8}") {
            prop_assert_eq!(of_index_name(&index_name(&value)), Some(value));
            if let Some(value) = of_index_name(name.as_bytes()) {
                prop_assert_eq!(index_name(&value), name.as_bytes());
            }
        }
    }
}
