//! The program davit-cowfs from outside: exit codes, what stays in the background, how mounts end, and ids as fuse-overlayfs maps them.

use std::time::{Duration, Instant};

use davit_tests::{Host, Ran, eventually};

/// A private host with `lower` (a file of root's and one of uid 1000's), `upper`, `work` and `mnt` in its work directory.
struct Deck {
    host: Host,
}

impl Deck {
    fn new() -> Self {
        let host = Host::builder().unchecked().create().unwrap_or_else(|e| panic!("no private host: {e:#}"));
        let program = davit_tests::host::binaries().join("davit-cowfs");
        assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
        // The upper layer's file system has to take xattrs.
        host.sh("mount -t tmpfs none . && cd $PWD && mkdir lower upper work mnt && echo one > lower/one && echo two > lower/two && chown 1000:1001 lower/two").ok();
        Self { host }
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        // The shell's directory is below the mount that was made after it was found.
        self.host.sh(&format!("cd {} && {script}", self.host.path().join("work").display()))
    }

    #[track_caller]
    fn mount(&self, options: &str) {
        self.sh(&format!("davit-cowfs -o lowerdir=lower,upperdir=upper,workdir=work{options} mnt")).ok();
    }

    fn mounts(&self) -> usize {
        self.sh("cat /proc/mounts").ok().stdout.matches("fuse.davit-cowfs").count()
    }

    #[track_caller]
    fn no_process_is_left(&self) {
        eventually("the process ends with its mount", || {
            let left = self.host.inventory().matching("davit-cowfs");
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// The pid of the one davit-cowfs that serves.
    fn server(&self) -> String {
        let pids = self.sh("for p in /proc/[0-9]*; do test \"$(cat $p/comm)\" = davit-cowfs && test $(ls $p/task | wc -l) -gt 1 && echo ${p#/proc/}; done; true");
        pids.ok().text().to_owned()
    }
}

#[test]
fn it_comes_back_when_the_mount_can_be_used_and_ends_when_it_is_unmounted() {
    let deck = Deck::new();
    deck.mount("");
    // Not a moment later.
    deck.sh("cat mnt/one; echo three > mnt/three; ls mnt upper")
        .ok()
        .prints("one\nmnt:\none\nthree\ntwo\n\nupper:\nthree");
    deck.sh("grep mnt /proc/self/mountinfo").ok().says(" - fuse.davit-cowfs davit-cowfs rw,");
    // It holds on to nothing of its caller's: not its directory, its output, nor what it left open.
    let server = deck.server();
    deck.sh(&format!("readlink /proc/{server}/cwd /proc/{server}/fd/[012]"))
        .ok()
        .prints("/\n/dev/null\n/dev/null\n/dev/null");
    deck.sh("umount mnt").ok();
    deck.no_process_is_left();
}

#[test]
fn large_reads_are_whole_wherever_they_begin_and_end() {
    let deck = Deck::new();
    // No multiple of a page, longer than what goes through a pipe at once, with a hole.
    deck.sh("head -c 5000001 /dev/urandom > lower/big && truncate -s 6000001 lower/big && head -c 1048576 /dev/urandom >> lower/big").ok();
    for options in ["", ",clone_fd"] {
        deck.mount(options);
        deck.sh("cmp lower/big mnt/big && cat mnt/big | cmp - lower/big").ok();
        for (skip, count) in
            [(0, 65536), (1, 65537), (4095, 262_144), (5_000_000, 1_500_000), (7_000_000, 70_000)]
        {
            let range = format!("bs=2M skip={skip} count={count} iflag=skip_bytes,count_bytes,fullblock");
            // Past the page cache, each read is a request of its size.
            deck.sh(&format!("dd if=mnt/big of=ours {range},direct status=none && dd if=lower/big of=theirs {range} status=none"))
                .ok();
            deck.sh("test -s ours && cmp ours theirs").ok();
        }
        // A file that is cut and grows again while it is read: its bytes or zeros, never another answer's.
        deck.sh("head -c 900000 lower/big > mnt/cut && head -c 900000 lower/big | tr -d '\\0' > whole").ok();
        deck.sh("(while test ! -e stop; do truncate -s 70000 mnt/cut; truncate -s 900000 mnt/cut; done) & \
             for i in $(seq 40); do \
                 dd if=mnt/cut bs=1M iflag=direct status=none | tr -d '\\0' > got; \
                 test -s got && cmp -n $(stat -c %s got) got whole || touch wrong; \
             done; touch stop; wait; rm stop; test ! -e wrong")
            .ok();
        deck.sh("umount mnt").ok();
        deck.no_process_is_left();
    }
}

#[test]
fn it_ends_with_its_mount_however_few_requests_it_has_had() {
    let deck = Deck::new();
    for requests in 0..6 {
        deck.mount("");
        let ask = format!("for n in $(seq {requests}); do test ! -e mnt/$n; done; umount mnt");
        deck.sh(&ask).ok();
        let begun = Instant::now();
        deck.no_process_is_left();
        assert!(begun.elapsed() < Duration::from_secs(5), "after {requests} requests");
    }
}

#[test]
fn mount8_mounts_it() {
    let deck = Deck::new();
    // It looks for programs where they are installed.
    let program = davit_tests::host::binaries().join("davit-cowfs");
    deck.sh(&format!("mount -t tmpfs none /usr/local/bin && ln -s {} /usr/local/bin", program.display()))
        .ok();
    deck.sh("mount -t fuse.davit-cowfs any mnt -o noatime,lowerdir=lower,upperdir=upper,workdir=work").ok();
    deck.sh("echo x > mnt/new && cat upper/new").ok().prints("x");
    deck.sh("grep mnt /proc/self/mountinfo").ok().says("noatime").says(" - fuse.davit-cowfs ");
    deck.sh("umount mnt").ok();
    deck.no_process_is_left();
}

#[test]
fn a_plain_user_mounts_by_fusermount3() {
    let deck = Deck::new();
    deck.host.share_fuse();
    deck.sh("chown -R 4242:4242 . && ln -s /proc/mounts /etc/mtab || true").ok();
    let here = deck.host.path().join("work").display().to_string();
    let sailor = |script: &str| {
        let script = format!("cd {here} && {script}");
        deck.host.command("/bin/sh").args(["-c", &script]).as_sailor().start().wait()
    };
    sailor("davit-cowfs -o lowerdir=lower,upperdir=upper,workdir=work,fsname='a b\\,c' mnt").ok();
    sailor("echo x >> mnt/one && rm mnt/two && cat upper/one && cat mnt/one").ok().prints("one\nx\none\nx");
    // The kernel's own rule for such mounts.
    deck.sh("grep mnt /proc/self/mountinfo").ok().says("nosuid,nodev").says("user_id=4242");
    deck.sh("cat mnt/one").code_is_not_zero();
    sailor("fusermount3 -u mnt").ok();
    deck.no_process_is_left();
    sailor("davit-cowfs -o lowerdir=lower mnt").ok();
    deck.sh(&format!("kill {}", deck.server())).ok();
    deck.no_process_is_left();
    assert_eq!(deck.mounts(), 0);
    sailor("davit-cowfs -o lowerdir=lower /usr").code_is_not_zero();
}

#[test]
fn layers_that_nothing_but_our_own_flags_protects_are_told_of_once() {
    let deck = Deck::new();
    deck.sh("cp -a /dev/fuse /run/fuse && chmod 666 /run/fuse && mount --bind /run/fuse /dev/fuse").ok();
    deck.sh("chown -R 4242:4242 . && ln -s /proc/mounts /etc/mtab || true").ok();
    let here = deck.host.path().join("work").display().to_string();
    let told = |sailor: bool| {
        let script = format!("cd {here} && davit-cowfs -d -o lowerdir=lower:work mnt > log 2>&1");
        let command = deck.host.command("/bin/sh").args(["-c", &script]);
        let running = if sailor { command.as_sailor().start() } else { command.start() };
        eventually("it mounts", || if deck.mounts() == 1 { Ok(()) } else { Err("no mount".into()) });
        let count =
            deck.sh("grep -c 'without a read-only mount of their own' log; true").ok().text().to_owned();
        deck.sh("umount mnt").ok();
        running.wait().ok();
        count
    };
    assert_eq!((told(true), told(false)), ("1".into(), "0".into()));
}

#[test]
fn without_xattrs_the_kernel_stops_asking() {
    let deck = Deck::new();
    deck.sh("davit-cowfs -d -o noxattrs,lowerdir=lower,upperdir=upper,workdir=work mnt > log 2>&1 & true")
        .ok();
    eventually("it mounts", || if deck.mounts() == 1 { Ok(()) } else { Err("no mount".into()) });
    deck.sh("for n in 1 2 3; do echo $n > mnt/$n && cat mnt/$n; done").ok().prints("1\n2\n3");
    deck.sh("grep -c 'GETXATTR name' log").ok().prints("1");
    deck.sh("umount mnt").ok();
}

#[test]
fn in_the_foreground_it_ends_with_the_mount() {
    let deck = Deck::new();
    let here = deck.host.path().join("work");
    let words = format!("cd {} && exec davit-cowfs -f -o lowerdir=lower any mnt", here.display());
    let running = deck.host.command("/bin/sh").args(["-c", &words]).start();
    eventually("it mounts", || if deck.mounts() == 1 { Ok(()) } else { Err("no mount".into()) });
    deck.sh("echo x > mnt/new").code_is_not_zero();
    deck.sh("umount mnt").ok();
    running.wait().ok();
}

#[test]
fn what_cannot_be_mounted_is_told_and_leaves_nothing() {
    let deck = Deck::new();
    for (words, told) in [
        ("-o lowerdir=nothing mnt", "nothing"),
        ("-o lowerdir=lower nowhere", "nowhere"),
        ("-o lowerdir=lower lower/one", "mount point"),
        ("-o lowerdir=lower,upperdir=upper mnt", "workdir"),
        ("-o lowerdir=lower,upperdir=upper,workdir=/dev/shm mnt", "same file system"),
        ("-o lowerdir=lower,frobnicate mnt", "frobnicate"),
        ("-o lowerdir=lower,uidmapping=0:1 mnt", "uidmapping"),
        ("-o lowerdir=lower", "mount point"),
        ("-f -o lowerdir=nothing mnt", "nothing"),
        ("-o lowerdir=lower,subtype=a/b\\\\,x=y,rootcontext=no mnt", "rootcontext"),
    ] {
        deck.sh(&format!("davit-cowfs {words}")).exits(1).refused(&[told]);
    }
    assert_eq!(deck.mounts(), 0);
    deck.no_process_is_left();
    deck.sh("davit-cowfs --version").ok().says("davit-cowfs: version ");
    deck.sh("davit-cowfs -h").ok().says("lowerdir=");
}

#[test]
fn signals_unmount_and_what_is_cached_is_written_first() {
    for signal in ["TERM", "INT", "HUP"] {
        let deck = Deck::new();
        deck.mount(",writeback=1");
        let server = deck.server();
        // Held open and never closed by a reader, so that nothing but the signal writes it.
        let script = format!("exec > {}/work/mnt/file; echo cached; read line", deck.host.path().display());
        let holder = deck.host.command("/bin/sh").args(["-c", &script]).open_stdin().start();
        let written = || deck.sh("stat -c %s mnt/file").stdout == "7\n";
        eventually("it is written", || if written() { Ok(()) } else { Err("not yet".into()) });
        deck.sh("cat upper/file").ok().prints("");
        deck.sh(&format!("kill -{signal} {server}")).ok();
        eventually("it unmounts", || if deck.mounts() == 0 { Ok(()) } else { Err("still mounted".into()) });
        deck.no_process_is_left();
        deck.sh("cat upper/file").ok().prints("cached");
        holder.wait();
    }
}

#[test]
fn a_signal_ends_it_even_when_the_mount_is_in_use() {
    let deck = Deck::new();
    deck.mount("");
    let user = deck.host.command("/bin/sh").args(["-c", "cd mnt && read line; ls"]).open_stdin().start();
    let server = deck.server();
    let inside = || deck.sh("readlink /proc/[0-9]*/cwd").stdout.contains("work/mnt");
    eventually("somebody is in it", || if inside() { Ok(()) } else { Err("nobody".into()) });
    deck.sh(&format!("kill {server}")).ok();
    deck.no_process_is_left();
    user.wait().code_is_not_zero();
}

#[test]
fn a_killed_one_leaves_a_dead_mount_and_auto_unmount_leaves_none() {
    let deck = Deck::new();
    deck.mount("");
    deck.sh(&format!("kill -9 {}", deck.server())).ok();
    eventually("the mount is dead", || {
        let ran = deck.sh("ls mnt");
        if ran.stderr.contains("not connected") { Ok(()) } else { Err(ran.to_string()) }
    });
    let again = "davit-cowfs -o lowerdir=lower mnt";
    deck.sh(again).exits(1).refused(&["work/mnt", "umount -l"]);
    deck.sh("umount -l mnt && ls mnt").ok().prints("");
    deck.no_process_is_left();

    deck.mount(",auto_unmount");
    deck.sh("cat mnt/one").ok().prints("one");
    deck.sh(&format!("kill -9 {}", deck.server())).ok();
    eventually("the mount is gone", || if deck.mounts() == 0 { Ok(()) } else { Err("still there".into()) });
    deck.no_process_is_left();
}

#[test]
fn ids_are_mapped_as_fuse_overlayfs_maps_them() {
    let options = [
        "uidmapping=0:1000:1:1000:0:1,gidmapping=0:2000:1:1001:0:10",
        "uidmapping=0:5000:1:1000:0:500,gidmapping=1000:0:1000:0:6000:1000",
        "squash_to_root",
        "squash_to_uid=7,squash_to_gid=8",
    ];
    for option in options {
        let [ours, theirs] = ["davit-cowfs", "fuse-overlayfs"].map(|program| {
            let deck = Deck::new();
            deck.sh(&format!("{program} -o lowerdir=lower,upperdir=upper,workdir=work,{option} mnt")).ok();
            deck.sh("mkdir mnt/d; echo more >> mnt/two; chown 0:0 mnt/one").ok();
            let seen = deck
                .sh("stat -c '%u:%g %n' mnt/one mnt/two mnt/d upper/two upper/one upper/d; ls upper")
                .ok()
                .stdout;
            deck.sh("umount mnt").ok();
            seen
        });
        assert_eq!(ours, theirs, "{option}");
    }
}
