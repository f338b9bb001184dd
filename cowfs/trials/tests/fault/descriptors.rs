//! No more descriptors.

use std::path::Path;

use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};

const LOWER: &str = "mkdir many full d e; for i in $(seq 100); do echo $i > many/$i; done; touch full/1 d/f e/f; \
                     echo x > a; ln a b; echo c > c; ln -s c link";

/// Each works, though what is kept open for later has taken every descriptor that the process may have.
const CHANGES: [&str; 14] = [
    "echo new > new",
    "mkfifo fifo",
    "mkdir dir",
    "ln -s x symlink",
    "rm link; echo over > link",
    "rm full/1; rmdir full; mkdir full",
    "rm d/f; rm e/f; mv -T d e",
    "echo y >> a",
    "ln c hard",
    "mv c moved",
    "ls -l many > list",
    "setfattr -n user.a -v 1 many/7",
    "chmod 600 many/8",
    "rm -r many/1 dir",
];

#[test]
fn what_is_kept_open_makes_room() {
    Host::run(|host| {
        sh(&host.dir("lower"), LOWER);
        let layers = Layers::new(host, "fs", &[host.path("lower")]);
        let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
        let server = fs.mounted().server();
        let limit = |most: usize| sh(&host.path(""), &format!("prlimit --pid {server} --nofile={most}:"));
        for change in CHANGES {
            // Reading opens each of them anew, as the kernel has forgotten what is in them.
            fs.forget();
            fs.sh("cat many/* > /dev/null");
            let open = (0..1000).find(|n| !Path::new(&format!("/proc/{server}/fd/{n}")).exists()).unwrap();
            assert!(open > 100, "{open} are open");
            limit(open);
            fs.sh(change);
            limit(1000);
        }
        let seen = "cat new link a b moved hard; LC_ALL=C ls -A . e full | tr '\\n' ' '";
        let before = fs.sh(seen);
        assert_eq!(
            before,
            "new\nover\nx\ny\nx\ny\nc\nc\n.: a b e fifo full hard link list many moved new symlink  e:  full:"
        );
        fs.remount();
        assert_eq!(fs.sh(seen), before);
        fs.end();
    });
}
