//! Debian's podman with `mount_program` set to davit-cowfs: builds, runs, commits and removes, as root and as a plain user.

use std::fs;
use std::path::Path;

use davit_tests::sailor::BUSYBOX;
use davit_tests::{Host, Ran};

/// A private host with podman whose root file systems a program mounts.
struct Podman {
    host: Host,
    rootless: bool,
}

impl Podman {
    fn new(program: &str, rootless: bool) -> Self {
        let host = Host::builder().unchecked().create().unwrap_or_else(|e| panic!("no private host: {e:#}"));
        let state = host.path().join("state");
        let limits = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]";
        let engine =
            "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        let containers = format!("[containers]\nnetns = \"none\"\n{limits}\n{engine}");
        write(&host.work("containers.conf"), &containers);
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/podman\"\nrootless_storage_path = \"{0}/podman\"\nrunroot = \"{0}/run\"\n\
             [storage.options.overlay]\nmount_program = \"{program}\"\n",
            state.display()
        );
        write(&host.work("storage.conf"), &storage);
        host.share_busybox();
        host.share_fuse();
        host.sh("mkdir -m 755 /run/empty").ok();
        if rootless {
            host.log_sailor_in();
            host.sh(&format!("chown 4242:4242 {}", state.display())).ok();
        }
        Self { host, rootless }
    }

    fn cowfs(rootless: bool) -> Self {
        let program = davit_tests::host::binaries().join("davit-cowfs");
        assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
        Self::new(program.to_str().expect("a path of text"), rootless)
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        let file = |name: &str| self.host.work(name).to_string_lossy().into_owned();
        let mut command = self
            .host
            .command("/bin/sh")
            .args(["-c", script])
            .env("CONTAINERS_CONF", file("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", file("storage.conf"))
            .env("XDG_RUNTIME_DIR", if self.rootless { "/run/user/4242" } else { "/run" });
        if self.rootless {
            command = command.as_sailor();
        }
        command.start().wait()
    }
}

/// Steps that touch what the steps before have left in lower layers.
const CONTAINERFILE: &str = r#"FROM busybox:1
RUN mkdir -p /srv/tree/deep /srv/gone && echo one > /srv/tree/file && echo two > /srv/tree/deep/file && echo x > /srv/gone/file
RUN ln /srv/tree/file /srv/tree/second && ln -s file /srv/tree/link && touch /srv/moving && touch "/srv/a name"
RUN echo more >> /srv/tree/file && chmod 4711 /srv/tree/second && chown 1000:1000 /srv/tree/deep/file
RUN rm -r /srv/gone && mkdir /srv/gone && echo new > /srv/gone/other
RUN rm -r /srv/tree/deep && echo now-a-file > /srv/tree/deep && mv /srv/moving /srv/tree/moved
RUN rm /etc/group && for n in 1 2 3 4 5 6 7 8 9; do echo $n > /srv/$n; done && rm /srv/3 /srv/7
USER web
RUN echo mine > /tmp/mine
USER root
CMD ["cat", "/srv/tree/file"]
"#;

/// Everything about the tree but times, inode numbers and links of directories.
const LISTING: &str = r#"
find /srv /tmp /home /etc/passwd | sort | while read -r f; do
    if test -d "$f"; then stat -c '%A %u %g %n' "$f"; else stat -c '%A %u %g %h %s %n' "$f"; fi
done
cat /srv/tree/file /srv/tree/deep /srv/gone/other /srv/1 /tmp/mine
readlink /srv/tree/link
ls /etc/group /srv/3 /srv/gone/file
"#;

fn built(podman: &Podman) -> String {
    let file = podman.host.work("Containerfile");
    write(&file, CONTAINERFILE);
    podman.sh(&format!("podman load -q -i {BUSYBOX}")).ok();
    podman
        .sh(&format!("podman build -q --layers --network none -t built -f {} /run/empty", file.display()))
        .ok();
    let listing = podman.sh(&format!("podman run --rm built sh -c {} 2>&1", quoted(LISTING)));
    assert!(listing.stdout.contains("srv/tree/second"), "no listing: {listing}");
    listing.stdout
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the test's directory takes files");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// An image built and run on cowfs is the same as on fuse-overlayfs, file by file.
fn images_are_the_same(rootless: bool) {
    let ours = Podman::cowfs(rootless);
    let ours_listing = built(&ours);
    ours.sh("podman run --rm built").ok().prints("one\nmore");
    let theirs = Podman::new("/usr/bin/fuse-overlayfs", rootless);
    assert_eq!(ours_listing, built(&theirs));
}

/// A container's life: run, write, exec, commit, diff, stop, start, remove.
fn a_containers_life(rootless: bool) {
    let podman = Podman::cowfs(rootless);
    podman.sh(&format!("podman load -q -i {BUSYBOX}")).ok();
    podman
        .sh("podman run -d --name c busybox:1 sh -c 'echo here > /written; mkfifo /pipe; rm /etc/passwd; sleep 1000'")
        .ok();
    podman
        .sh("podman exec c sh -c 'until test ! -e /etc/passwd; do sleep 0.1; done; cat /written'")
        .ok()
        .prints("here");
    podman.sh("podman exec c grep ' / / ' /proc/self/mountinfo").ok().says("fuse.davit-cowfs");
    podman
        .sh("podman exec c sh -c 'dd if=/dev/zero of=/big bs=1M count=20 && sync && stat -c %s /big'")
        .ok()
        .prints("20971520");
    podman.sh("podman cp c:/written - | tar -xO").ok().prints("here");
    podman.sh("podman diff c").ok().says("A /written").says("D /etc/passwd");
    podman.sh("podman commit -q c committed").ok();
    podman.sh("podman run --rm committed sh -c 'cat /written; test ! -e /etc/passwd && mv /pipe /moved && test -p /moved'").ok().prints("here");
    podman.sh("podman stop -t 0 c && podman start c && podman exec c cat /written").ok().says("here");
    podman.sh("podman rm -f -t 0 c").ok();
    podman.sh("podman rmi committed").ok();
    let mounts = podman.sh("cat /proc/mounts").ok();
    assert!(!mounts.stdout.contains("cowfs"), "a mount is left: {mounts}");
    davit_tests::eventually("the file system's process ends with its mount", || {
        let left = podman.host.inventory().matching("davit-cowfs");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn root_builds_the_image_that_fuse_overlayfs_builds() {
    images_are_the_same(false);
}

#[test]
fn a_plain_user_builds_the_image_that_fuse_overlayfs_builds() {
    images_are_the_same(true);
}

#[test]
fn roots_container_lives_on_cowfs() {
    a_containers_life(false);
}

#[test]
fn a_plain_users_container_lives_on_cowfs() {
    a_containers_life(true);
}
