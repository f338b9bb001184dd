//! davit-runner under engines of others: Debian's podman with conmon, containerd's runc shim, docker.

use std::fs;

use davit_tests::host::Running;
use davit_tests::{Host, Ran, eventually, fixture};

fn runner() -> String {
    davit_tests::host::binaries().join("davit-runner").display().to_string()
}

/// Nothing of the runner's or of its callers' is left.
fn assert_nothing_left(host: &Host, roots: &[&str]) {
    for root in roots {
        host.sh(&format!("[ ! -d {root} ] || ls -A {root}")).ok().prints("");
    }
    host.sh("find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} +").ok();
}

fn podman(host: &Host) -> impl Fn(&str) -> Ran {
    let conf = host.work("containers.conf");
    // Without it podman asks for more files and processes than an unprivileged root may have.
    let limits = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]";
    fs::write(&conf, format!("[containers]\n{limits}\n[engine]\ncgroup_manager = \"cgroupfs\"\n"))
        .expect("a file of the host");
    host.sh("mount -t tmpfs tmpfs /var/lib").ok();
    let state = host.path().join("state/podman");
    let podman = format!(
        "CONTAINERS_CONF={} podman --root {} --runroot /run/containers/storage --storage-driver vfs --runtime {}",
        conf.display(),
        state.display(),
        runner()
    );
    move |args: &str| host.sh(&format!("{podman} {args}"))
}

#[test]
fn podman_drives_the_runner() {
    let host = Host::new();
    let podman = podman(&host);
    podman(&format!("load -q -i {}", fixture::busybox().archive())).ok();
    let images = podman("images --format '{{.Repository}}:{{.Tag}}'").ok();
    let image = images.stdout.lines().find(|l| l.ends_with("busybox:1")).expect("it was loaded");
    let run =
        |options: &str, command: &str| podman(&format!("run --network none {options} {image} {command}"));

    run("--rm", "sh -c 'echo out; echo err >&2; exit 7'").exits(7).prints("out");
    run("--rm", "/nosuch").exits(127);
    run("--rm", "/etc/passwd").exits(126);
    run("--rm -t", "sh -c 'test -t 0 && echo tty'").ok().says("tty");
    run(
        "--rm --read-only --tmpfs /x --user 7:8 --cap-drop all --ulimit nofile=64:64 --hostname boat",
        "sh -c 'id -u; hostname; ulimit -n; touch /x/y; touch /y'",
    )
    .exits(1)
    .prints("7\nboat\n64");
    run("--rm --pid host --ipc host --uts host --cgroupns host", "true").ok();
    // podman maps the ids of its copy of the image; the runner makes the user namespace.
    run("--rm --uidmap 0:100000:65536", "sh -c 'id -u; cat /proc/self/uid_map; stat -c %u /bin'")
        .ok()
        .says("100000")
        .says("0\n");
    run("--rm --privileged -v /etc:/e:ro", "sh -c 'ls /e/passwd; grep CapEff /proc/self/status'")
        .ok()
        .says("/e/passwd");

    run(
        "-d --name web --memory 64m --cpus 1 --pids-limit 50",
        "sh -c 'trap \"exit 9\" TERM; while :; do sleep 0.1; done'",
    )
    .ok();
    podman("exec web sh -c 'id -u; exit 5'").exits(5).prints("0");
    podman("exec -u 7:8 -w /tmp -e A=b web sh -c 'id -u; pwd; echo $A'").ok().prints("7\n/tmp\nb");
    podman("exec web /nosuch").exits(127);
    podman("exec -d web sleep 500").ok();
    podman("top web").ok().says("sleep 500");
    podman("pause web").ok();
    podman("ps -a --format '{{.Names}} {{.Status}}'").ok().says("Paused");
    podman("unpause web").ok();
    podman("stats --no-stream --format '{{.Name}} {{.MemUsage}}' web").ok().says("67.11MB");
    podman("update --cpus 2 web").ok();
    podman("stop -t 20 web").ok();
    podman("inspect -f '{{.State.ExitCode}} {{.State.Status}}' web").ok().prints("9 exited");
    podman("start web").ok();
    podman("restart -t 0 web").ok();
    podman("kill web").ok();
    podman("wait web").ok().prints("137");
    podman("rm -f -t 0 web").ok();

    // A pod: its infra container holds the namespaces, the others join them.
    podman(&format!("pod create --name p --network none --infra-image {image} --infra-command 'sleep 1000'"))
        .ok();
    podman(&format!("run --rm --pod p {image} sh -c 'hostname'")).ok().prints("p");
    podman("pod rm -f -t 0 p").ok();
    podman("ps -aq").ok().prints("");
    assert_nothing_left(&host, &["/run/davit-runner"]);
    host.sh("umount /run/netns; umount /var/lib").ok();
}

fn containerd(host: &Host) -> Running {
    let at = host.work("containerd").display().to_string();
    fs::create_dir_all(&at).expect("a directory of the host");
    let without = ["grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper"]
        .map(|name| format!("io.containerd.{name}"));
    let config = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"/run/containerd\"\ndisabled_plugins = {without:?}\n\
         [grpc]\naddress = \"/run/containerd/containerd.sock\"\n"
    );
    fs::write(format!("{at}/config.toml"), config).expect("a file of the host");
    let file = format!("{at}/config.toml");
    let running = host.command("containerd").args(["--config", &file, "--log-level", "error"]).start();
    eventually("containerd answers", || {
        let ran = host.sh("ctr version");
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    running
}

#[test]
fn the_runc_shim_of_containerd_drives_the_runner() {
    let host = Host::new();
    let _containerd = containerd(&host);
    let ctr = |args: &str| host.sh(&format!("ctr {args}"));
    ctr(&format!("image import --snapshotter native {}", fixture::busybox().archive())).ok();
    let images = ctr("image ls -q").ok();
    let image = images.stdout.lines().next().expect("it was imported").to_owned();
    let run = |options: &str, rest: &str| {
        ctr(&format!("run --runc-binary {} --snapshotter native {options} {image} {rest}", runner()))
    };
    run("--rm", "one sh -c 'id -u; exit 7'").exits(7).prints("0");
    run("--rm --null-io", "two sh -c 'exit 3'").exits(3);
    run("--rm", "bad /nosuch").exits(1).refused(&["stat /nosuch: no such file or directory"]);
    run("-d --memory-limit 64000000", "web sleep 1000").ok();
    ctr("task exec --exec-id e1 web sh -c 'id -u; exit 5'").exits(5).prints("0");
    ctr("task exec --exec-id e2 --user 7 --cwd /tmp web sh -c 'id -u; pwd'").ok().prints("7\n/tmp");
    ctr("task pause web").ok();
    ctr("task ls").ok().says("PAUSED");
    ctr("task resume web").ok();
    ctr("task metrics web").ok().says("memory.limit_in_bytes").says("64000000");
    ctr("task exec -d --exec-id e3 web sleep 500").ok();
    let pids = |wanted: usize| {
        eventually("the shim counts its processes", || {
            let ran = ctr("task ps web").ok();
            if ran.stdout.lines().count() == wanted + 1 { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    pids(2);
    ctr("task kill --exec-id e3 -s 9 web").ok();
    pids(1);
    ctr("task checkpoint web").exits(1).refused(&["checkpoint is not supported"]);
    ctr("task kill -s 15 web").ok();
    ctr("task kill -s 9 web").ok();
    eventually("the task has stopped", || {
        let ran = ctr("task ls").ok();
        if ran.stdout.contains("STOPPED") { Ok(()) } else { Err(ran.to_string()) }
    });
    ctr("task rm web").says_not("level=error");
    ctr("c rm web").ok();
    ctr("c ls -q").ok().prints("");
    assert_nothing_left(&host, &["/run/containerd/runc/default"]);
    host.sh("find /sys/fs/cgroup -depth -type d -path '*/default*' -exec rmdir {} + 2>/dev/null; true").ok();
}

#[test]
fn docker_drives_the_runner() {
    let host = Host::new();
    let state = host.path().join("state").display().to_string();
    let config = host.work("daemon.json");
    let text = format!("{{\"runtimes\":{{\"davit\":{{\"path\":\"{}\"}}}}}}", runner());
    fs::write(&config, text).expect("a file of the host");
    let daemon = format!(
        "exec dockerd --config-file {} --data-root {state}/docker --exec-root /run/docker --pidfile /run/docker.pid \
         -H unix:///run/docker.sock --storage-driver vfs --iptables=false --bridge=none",
        config.display()
    );
    let dockerd = host.command("/bin/sh").args(["-c", &daemon]).start();
    let docker = |args: &str| host.sh(&format!("DOCKER_HOST=unix:///run/docker.sock docker {args}"));
    eventually("dockerd answers", || {
        let ran = docker("version");
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran}{}", dockerd.so_far())) }
    });
    docker(&format!("load -q -i {}", fixture::busybox().archive())).ok();
    let run = |options: &str, rest: &str| {
        docker(&format!("run --runtime davit --network none {options} busybox:1 {rest}"))
    };
    run("--rm", "sh -c 'id -u; exit 7'").exits(7).prints("0");
    run("--rm", "/nosuch").exits(127);
    run("--rm", "/etc/passwd").exits(126);
    run("--rm --init", "cat /proc/1/cmdline").ok().says("docker-init");
    run("-d --name web --memory 64m --cpus 1 --pids-limit 50", "sleep 1000").ok();
    docker("exec web sh -c 'id -u; exit 5'").exits(5).prints("0");
    // What docker makes of a failed exec is what it makes of runc's.
    docker("run -d --runtime runc --network none --name peer busybox:1 sleep 1000").ok();
    for command in ["/nosuch", "nosuch", "/etc/passwd"] {
        let theirs = docker(&format!("exec peer {command}"));
        docker(&format!("exec web {command}")).exits(theirs.code);
    }
    docker("rm -f peer").ok();
    docker("exec -t web sh -c 'test -t 0 && echo tty'").ok().says("tty");
    docker("top web").ok().says("sleep 1000");
    docker("pause web").ok();
    docker("ps --format '{{.Status}}'").ok().says("Paused");
    docker("unpause web").ok();
    docker("stats --no-stream --format '{{.Name}} {{.MemUsage}}' web").ok().says("64MiB");
    docker("update --cpus 2 web").ok();
    docker("stop -t 0 web").ok();
    docker("inspect -f '{{.State.ExitCode}} {{.State.Status}}' web").ok().prints("137 exited");
    docker("start web").ok();
    docker("rm -f web").ok();
    run("--name oom --memory 16m --memory-swap 16m", "sh -c 'x=a; while :; do x=$x$x; done'").exits(137);
    docker("inspect -f '{{.State.OOMKilled}}' oom").ok().prints("true");
    docker("rm oom").ok();
    host.sh("kill $(cat /run/docker.pid)").ok();
    dockerd.wait();
    assert_nothing_left(&host, &["/run/docker/runtime-davit/moby", "/var/run/docker/runtime-davit/moby"]);
    host.sh("find /sys/fs/cgroup -depth -type d -path '*/docker' -exec rmdir {} +").ok();
}
