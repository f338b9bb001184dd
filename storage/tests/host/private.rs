//! A private storaged for one test: its own directories, the real program, a client of its socket.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use davit_contracts::storage as pb;
use davit_contracts::{Error, client};
use pb::images_client::ImagesClient;
use pb::snapshots_client::SnapshotsClient;
use pb::system_client::SystemClient;
use pb::volumes_client::VolumesClient;
use tonic::transport::Channel;

#[derive(Clone)]
pub struct Clients {
    pub images: ImagesClient<Channel>,
    pub snapshots: SnapshotsClient<Channel>,
    pub volumes: VolumesClient<Channel>,
    pub system: SystemClient<Channel>,
}

pub struct Host {
    pub tmp: tempfile::TempDir,
    /// Size of a tmpfs that the daemon has as its state, in a mount namespace of its own.
    tmpfs: Option<&'static str>,
    /// In a user namespace of its own.
    rootless: bool,
    /// Further environment of the daemon.
    pub env: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl Host {
    /// Starts a daemon below a fresh directory.
    pub async fn new() -> Self {
        Self::begin(None, false).await
    }

    /// Starts a daemon whose state is a small tmpfs that only it sees; "ext4:16m": an ext4 that stays when it ends;
    /// "btrfs:16M": a btrfs with a quota.
    pub async fn on_tmpfs(size: &'static str) -> Self {
        Self::begin(Some(size), false).await
    }

    /// Starts a daemon in a user namespace, as the supervisor does for a plain user.
    pub async fn rootless() -> Self {
        Self::begin(None, true).await
    }

    /// Starts a daemon with this as its storaged.toml.
    pub async fn with_config(toml: &str) -> Self {
        let tmp = tempfile::Builder::new().prefix("davit-st").tempdir().unwrap();
        let mut host = Self { tmp, tmpfs: None, rootless: false, env: Vec::new(), daemon: None };
        host.configure(toml);
        host.start().await;
        host
    }

    /// Writes storaged.toml, for the next start.
    pub fn configure(&self, toml: &str) {
        let config = self.tmp.path().join("config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("storaged.toml"), toml).unwrap();
    }

    async fn begin(tmpfs: Option<&'static str>, rootless: bool) -> Self {
        let tmp = tempfile::Builder::new().prefix("davit-st").tempdir().unwrap();
        let mut host = Self { tmp, tmpfs, rootless, env: Vec::new(), daemon: None };
        host.start().await;
        host
    }

    /// Makes the directories of a host below `dir`, without a daemon yet.
    pub fn unstarted(dir: &Path) -> Self {
        let tmp = tempfile::Builder::new().prefix("davit-st").tempdir_in(dir).unwrap();
        Self { tmp, tmpfs: None, rootless: false, env: Vec::new(), daemon: None }
    }

    pub fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_davit-storaged");
        let state = self.tmp.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let mut command = match self.tmpfs {
            None if self.rootless => {
                let mut command = Command::new("unshare");
                command.args(["-U", "-r", "-m", program]).env("DAVIT_ROOTLESS", "1");
                command
            }
            None => Command::new(program),
            Some(size) => {
                let mut command = Command::new("unshare");
                let mount = match size.strip_prefix("ext4:") {
                    Some(size) => {
                        let disk = self.tmp.path().join("disk");
                        if !disk.exists() {
                            sh(&format!(
                                "truncate -s {size} {0}; mkfs.ext4 -q -F -J size=1 {0}",
                                disk.display()
                            ));
                        }
                        format!("mount -o loop,errors=remount-ro {}", disk.display())
                    }
                    None => format!("mount -t tmpfs -o size={size} tmpfs"),
                };
                let mut script = format!("{mount} {}; exec {program}", state.display());
                if let Some(quota) = size.strip_prefix("btrfs:") {
                    let (disk, state) = (self.tmp.path().join("disk"), state.display());
                    sh(&format!("truncate -s 200M {0}; mkfs.btrfs -q {0}", disk.display()));
                    script = format!(
                        "mount -o loop {} {state}; btrfs quota enable {state}; btrfs qgroup limit {quota} {state}; exec {program}",
                        disk.display()
                    );
                }
                command.args(["-m", "--propagation", "private", "sh", "-ec", &script]);
                command
            }
        };
        command
            .env("DAVIT_STATE_DIR", &state)
            .env("DAVIT_RUN_DIR", self.tmp.path().join("run"))
            .env("DAVIT_CONFIG_DIR", self.tmp.path().join("config"))
            .env_remove("LISTEN_FDS")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    pub async fn start(&mut self) {
        assert!(self.daemon.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.daemon = Some(self.command().stderr(log).spawn().unwrap());
        for _ in 0..500 {
            if client::connect(&self.socket()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("storaged does not start: {}", self.log());
    }

    /// Starts a daemon that may die while it does; whether it serves.
    pub async fn start_or_die(&mut self) -> bool {
        assert!(self.daemon.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.daemon = Some(self.command().stderr(log).spawn().unwrap());
        for _ in 0..2000 {
            if self.is_dead() {
                return false;
            }
            if client::connect(&self.socket()).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("storaged neither starts nor dies: {}", self.log());
    }

    /// Whether the daemon has ended by itself.
    pub fn is_dead(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|d| d.try_wait().unwrap().is_some())
    }

    /// The signal that ended the daemon, which has ended.
    pub fn buried(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.daemon.take().unwrap().wait().unwrap().signal()
    }

    /// SIGTERM, and its orderly end.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", self.log());
    }

    /// The same daemon again, with more in its environment; also where it has ended by itself.
    pub async fn restart_with(&mut self, env: &'static [(&'static str, &'static str)]) {
        self.kill();
        self.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.start().await;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        // One that has ended already is no process to be killed.
        let _ = daemon.kill();
        daemon.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    fn log_path(&self) -> PathBuf {
        self.tmp.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.tmp.path().join("run/storaged.sock")
    }

    pub fn state(&self) -> PathBuf {
        let seen_by_us = self.tmp.path().join("state/storage");
        match self.tmpfs {
            None => seen_by_us,
            Some(_) => PathBuf::from(format!("/proc/{}/root{}", self.pid(), seen_by_us.display())),
        }
    }

    fn channel(&self) -> Channel {
        client::lazy(&self.socket())
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel())
    }

    pub fn volumes(&self) -> VolumesClient<Channel> {
        VolumesClient::new(self.channel())
    }

    pub fn system(&self) -> SystemClient<Channel> {
        SystemClient::new(self.channel())
    }

    /// All of them on one connection, made when it is needed.
    pub fn clients(&self) -> Clients {
        Self::clients_at(&self.socket())
    }

    pub fn clients_at(socket: &Path) -> Clients {
        let channel = client::lazy(socket);
        Clients {
            images: ImagesClient::new(channel.clone()),
            snapshots: SnapshotsClient::new(channel.clone()),
            volumes: VolumesClient::new(channel.clone()),
            system: SystemClient::new(channel),
        }
    }

    pub async fn pull(&self, request: pb::PullRequest) -> Result<pb::ImageDone, Error> {
        let stream = self.images().pull(request).await?.into_inner();
        Ok(drain(stream).await?.remove(0))
    }

    pub async fn load(&self, path: &Path) -> Result<Vec<pb::ImageDone>, Error> {
        let header = pb::LoadHeader { path: path.display().to_string(), ..Default::default() };
        let request = pb::LoadRequest { part: Some(pb::load_request::Part::Header(header)) };
        let stream = self.images().load(tokio_stream::iter([request])).await?.into_inner();
        drain(stream).await
    }

    /// The same with the bytes streamed.
    pub async fn load_bytes(&self, bytes: Vec<u8>) -> Result<Vec<pb::ImageDone>, Error> {
        let mut parts = vec![pb::load_request::Part::Header(pb::LoadHeader::default())];
        parts.extend(bytes.chunks(100_000).map(|c| pb::load_request::Part::Data(c.to_vec())));
        let requests: Vec<_> = parts.into_iter().map(|p| pb::LoadRequest { part: Some(p) }).collect();
        let stream = self.images().load(tokio_stream::iter(requests)).await?.into_inner();
        drain(stream).await
    }

    pub async fn import(
        &self,
        tar: Vec<u8>,
        reference: &str,
        changes: &[&str],
    ) -> Result<pb::ImageDone, Error> {
        use pb::import_request::Part;
        let header = pb::ImportHeader {
            reference: reference.into(),
            changes: changes.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let mut parts = vec![Part::Header(header)];
        parts.extend(tar.chunks(100_000).map(|c| Part::Data(c.to_vec())));
        let requests: Vec<_> = parts.into_iter().map(|p| pb::ImportRequest { part: Some(p) }).collect();
        let stream = self.images().import(tokio_stream::iter(requests)).await?.into_inner();
        Ok(drain(stream).await?.remove(0))
    }

    pub async fn make_from_host(&self, reference: &str, programs: &[&str]) -> Result<pb::ImageDone, Error> {
        let request = pb::FromHostRequest {
            reference: reference.into(),
            programs: programs.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let stream = self.images().from_host(request).await?.into_inner();
        Ok(drain(stream).await?.remove(0))
    }

    /// All images, with their layers, which lists leave out.
    pub async fn list(&self) -> Vec<pb::Image> {
        let mut all = self.images().list(pb::ListImagesRequest::default()).await.unwrap().into_inner().images;
        for image in &mut all {
            image.diff_ids = self.inspect(&image.id).await.unwrap().image.unwrap().diff_ids;
        }
        all
    }

    pub async fn inspect(&self, reference: &str) -> Result<pb::InspectImageResponse, Error> {
        let request = pb::InspectImageRequest { reference: reference.into() };
        Ok(self.images().inspect(request).await?.into_inner())
    }

    pub async fn remove(&self, reference: &str, force: bool) -> Result<pb::RemoveImageResponse, Error> {
        let request = pb::RemoveImageRequest { reference: reference.into(), force };
        Ok(self.images().remove(request).await?.into_inner())
    }

    pub async fn prepare(&self, key: &str, image: &str) -> Result<pb::PrepareResponse, Error> {
        let request = pb::PrepareRequest { key: key.into(), image: image.into(), ..Default::default() };
        Ok(self.snapshots().prepare(request).await?.into_inner())
    }

    /// Runs a shell script in a private mount namespace with the mounts made on $ROOT, which is a directory of this host.
    pub fn in_mount(&self, mounts: &[pb::Mount], script: &str) -> (bool, String) {
        let root = self.tmp.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        let mount = &mounts[0];
        // util-linux of Debian 12 does not know lowerdir+: the older spelling says the same.
        let lower: Vec<&str> = mount.options.iter().filter_map(|o| o.strip_prefix("lowerdir+=")).collect();
        let mut options = vec![format!("lowerdir={}", lower.join(":"))];
        options.extend(mount.options.iter().filter(|o| !o.starts_with("lowerdir+=")).cloned());
        let line = match mount.r#type.as_str() {
            "overlay" => format!("mount -t overlay overlay -o {} $ROOT", options.join(",")),
            _ => format!("mount --bind {} $ROOT", mount.source),
        };
        let out = Command::new("unshare")
            .args(if self.rootless { &["-U", "-r"][..] } else { &[] })
            .args(["-m", "--propagation", "private", "sh", "-ec", &format!("{line}\n{script}")])
            .env("ROOT", &root)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    }

    /// Names below a directory of the state, but for what is being deleted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.state().join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Nothing of any image, finished or not.
    pub fn assert_empty(&self) {
        for dir in ["layers", "staging", "blobs", "ingest"] {
            assert_eq!(self.names(dir), Vec::<String>::new(), "left in {dir}\n{}", self.log());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- storaged ---\n{}", self.log());
        }
    }
}

pub async fn drain(mut stream: tonic::Streaming<pb::Progress>) -> Result<Vec<pb::ImageDone>, Error> {
    let mut done = Vec::new();
    while let Some(progress) = stream.message().await? {
        if let Some(pb::progress::Event::Done(d)) = progress.event {
            done.push(d);
        }
    }
    Ok(done)
}

/// Runs a program and expects success.
pub fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        out.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// An OCI layout `dir/layout` of two layers made by umoci: busybox, then a file, a deleted one and an opaque directory.
pub fn busybox_layout(dir: &Path) -> PathBuf {
    let d = dir.display();
    sh(&format!(
        "cd {d}; mkdir -p root/bin root/etc root/gone root/dir; cp /usr/bin/busybox root/bin/busybox
         for p in sh ls cat true; do ln -s busybox root/bin/$p; done
         echo root:x:0:0:root:/:/bin/sh > root/etc/passwd; echo below > root/dir/below; echo old > root/gone/file
         umoci init --layout layout; umoci new --image layout:base
         umoci insert --image layout:base root /
         umoci config --image layout:base --config.cmd /bin/sh --config.env A=b --config.label made=umoci
         umoci tag --image layout:base two
         mkdir new; echo above > new/above
         umoci insert --image layout:two --opaque new /dir
         umoci insert --image layout:two --whiteout /gone"
    ));
    dir.join("layout")
}
