//! Mount options as text: which are the mount's own attributes and which go to the file system.

use rustix::mount::MountAttrFlags;

/// Options sorted by who takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount point (`ro`, `nosuid`, ...).
    pub attributes: MountAttrFlags,
    /// `bind` or `rbind` was among them.
    pub bind: bool,
    /// `rbind` was among them.
    pub recursive: bool,
    /// The file system's own, in order: key and, unless it is a flag, value.
    pub filesystem: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts options. Every string parses: what is no attribute is the file system's, and the kernel judges it.
    pub fn parse(options: &[String]) -> Self {
        let mut parsed = Self {
            attributes: MountAttrFlags::empty(),
            bind: false,
            recursive: false,
            filesystem: Vec::new(),
        };
        for option in options.iter().filter(|o| !o.is_empty()) {
            if !parsed.take_attribute(option) {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                };
                parsed.filesystem.push((key, value));
            }
        }
        parsed
    }

    fn take_attribute(&mut self, option: &str) -> bool {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "ro" => self.attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "rw" => self.attributes -= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            // The kernel's default for new mounts, and what userland means by nothing at all.
            "relatime" | "suid" | "dev" | "exec" | "defaults" => {}
            _ => return false,
        }
        true
    }

    /// Turns overlay's `lowerdir=a:b:c`, the shape of mount(2), into one `lowerdir+` each, so that the length of the whole does not
    /// matter. False, with nothing changed, when it names data-only layers (`::`), which only the old shape can say.
    pub fn split_lowerdir(&mut self) -> bool {
        let mut split = Vec::with_capacity(self.filesystem.len());
        for (key, value) in &self.filesystem {
            match (key.as_str(), value) {
                ("lowerdir", Some(all)) => {
                    let Some(dirs) = directories(all) else { return false };
                    split.extend(dirs.into_iter().map(|d| ("lowerdir+".to_owned(), Some(d))));
                }
                _ => split.push((key.clone(), value.clone())),
            }
        }
        self.filesystem = split;
        true
    }

    /// The file system's options as mount(2) takes them for overlay: `lowerdir+` options joined to one, colons in paths escaped.
    pub fn overlay_data(&self) -> String {
        let mut lower = Vec::new();
        let mut rest = Vec::new();
        for (key, value) in &self.filesystem {
            match (key.as_str(), value) {
                ("lowerdir+", Some(path)) => lower.push(escape(path, &['\\', ':', ','])),
                // Escaped by who wrote it in this shape.
                ("lowerdir", Some(all)) => lower.push(all.clone()),
                (_, Some(value)) => rest.push(format!("{key}={}", escape(value, &['\\', ',']))),
                (_, None) => rest.push(key.clone()),
            }
        }
        rest.insert(0, format!("lowerdir={}", lower.join(":")));
        rest.join(",")
    }

    /// The same as words for `-o` of fuse-overlayfs's command line: what overlay takes in one, each attribute in one.
    pub fn command_line(&self) -> Vec<String> {
        let attributes = [
            (MountAttrFlags::MOUNT_ATTR_RDONLY, "ro"),
            (MountAttrFlags::MOUNT_ATTR_NOSUID, "nosuid"),
            (MountAttrFlags::MOUNT_ATTR_NODEV, "nodev"),
            (MountAttrFlags::MOUNT_ATTR_NOEXEC, "noexec"),
            (MountAttrFlags::MOUNT_ATTR_NOATIME, "noatime"),
        ];
        let set = attributes.into_iter().filter(|(flag, _)| self.attributes.contains(*flag));
        [self.overlay_data()].into_iter().chain(set.map(|(_, word)| word.to_owned())).collect()
    }
}

/// Splits at colons; a backslash takes the next character as it is. None for an empty part.
fn directories(all: &str) -> Option<Vec<String>> {
    let mut dirs = vec![String::new()];
    let mut chars = all.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => dirs.push(String::new()),
            '\\' => dirs.last_mut()?.extend(chars.next()),
            c => dirs.last_mut()?.push(c),
        }
    }
    dirs.iter().all(|d| !d.is_empty()).then_some(dirs)
}

fn escape(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_and_file_system_options_are_told_apart() {
        let o = parse(&["rbind", "ro", "nosuid", "index=off", "userxattr", "lowerdir+=/a=b"]);
        assert!(o.bind && o.recursive);
        assert_eq!(o.attributes, MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(
            o.filesystem,
            [
                ("index".to_owned(), Some("off".to_owned())),
                ("userxattr".to_owned(), None),
                ("lowerdir+".to_owned(), Some("/a=b".to_owned())),
            ]
        );
    }

    #[test]
    fn the_last_of_ro_and_rw_wins() {
        assert_eq!(parse(&["ro", "rw"]).attributes, MountAttrFlags::empty());
    }

    #[test]
    fn old_kernels_get_one_lowerdir_topmost_first() {
        let o = parse(&["lowerdir+=/top", "lowerdir+=/a:b", "upperdir=/u", "workdir=/w", "volatile"]);
        assert_eq!(o.overlay_data(), r"lowerdir=/top:/a\:b,upperdir=/u,workdir=/w,volatile");
    }

    #[test]
    fn a_server_gets_the_attributes_apart() {
        let o = parse(&["ro", "lowerdir+=/top", "lowerdir+=/low", "userxattr", "nodev"]);
        assert_eq!(o.command_line(), ["lowerdir=/top:/low,userxattr", "ro", "nodev"]);
    }

    #[test]
    fn one_lowerdir_becomes_one_option_a_directory() {
        let mut o = parse(&["index=off", "workdir=/w", r"lowerdir=/a:/b\:c:/d", "upperdir=/u"]);
        assert!(o.split_lowerdir());
        let lower: Vec<_> =
            o.filesystem.iter().filter(|(k, _)| k == "lowerdir+").filter_map(|(_, v)| v.as_deref()).collect();
        assert_eq!(lower, ["/a", "/b:c", "/d"]);
        assert_eq!(o.filesystem.len(), 6);
    }

    #[test]
    fn data_only_layers_stay_in_the_old_shape() {
        let mut o = parse(&["lowerdir=/a::/data", "upperdir=/u"]);
        assert!(!o.split_lowerdir());
        assert_eq!(o.overlay_data(), "lowerdir=/a::/data,upperdir=/u");
    }
}
