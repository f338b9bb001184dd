//! One source of load: random operations, and what is known after each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use davit_contracts::storage as pb;
use davit_contracts::{Error, Kind};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::corpus::Corpus;
use crate::host::{Clients, drain};

/// What answers have promised. Names, volumes and keys belong to one worker only.
#[derive(Debug, Default, Clone)]
pub struct Known {
    /// Name to layers.
    pub names: BTreeMap<String, Vec<usize>>,
    pub volumes: BTreeSet<String>,
    /// Volume and container.
    pub uses: BTreeSet<(String, String)>,
    /// Key to layers.
    pub snapshots: BTreeMap<String, Vec<usize>>,
    /// Asked for and not answered: it may have happened or not.
    pub doubt: Option<Change>,
}

#[derive(Debug, Clone)]
pub enum Change {
    Name(String, Option<Vec<usize>>),
    Volume(String, bool),
    Use(String, String, bool),
    Snapshot(String, Option<Vec<usize>>),
    /// Nothing that anybody would miss.
    Nothing,
}

impl Known {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Name(name, Some(layers)) => drop(self.names.insert(name, layers)),
            Change::Name(name, None) => drop(self.names.remove(&name)),
            Change::Volume(name, true) => drop(self.volumes.insert(name)),
            Change::Volume(name, false) => drop(self.volumes.remove(&name)),
            Change::Use(volume, user, true) => {
                self.volumes.insert(volume.clone());
                self.uses.insert((volume, user));
            }
            Change::Use(_, user, false) => self.uses.retain(|u| u.1 != user),
            Change::Snapshot(key, Some(layers)) => drop(self.snapshots.insert(key, layers)),
            Change::Snapshot(key, None) => drop(self.snapshots.remove(&key)),
            Change::Nothing => {}
        }
    }
}

/// Which operations a worker prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taste {
    All,
    Images,
    Removals,
    Snapshots,
    Volumes,
}

impl Taste {
    /// For a fail point to be passed soon.
    pub fn of_point(point: &str) -> Self {
        match point.split('.').next() {
            Some("remove" | "prune" | "collect" | "trash") => Self::Removals,
            Some("snapshot") => Self::Snapshots,
            Some("volume") => Self::Volumes,
            _ => Self::Images,
        }
    }
}

pub struct Worker {
    pub id: usize,
    pub corpus: Arc<Corpus>,
    pub clients: Clients,
    pub random: StdRng,
    pub known: Arc<Mutex<Known>>,
    /// Images of a registry that this worker pulls, with their layers.
    pub pulled: Vec<(String, Vec<usize>)>,
    pub taste: Taste,
}

/// Whether the daemon has answered, or died.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Given,
    Died,
}

impl Worker {
    pub fn new(
        id: usize,
        corpus: Arc<Corpus>,
        clients: Clients,
        known: Arc<Mutex<Known>>,
        seed: u64,
    ) -> Self {
        Self {
            id,
            corpus,
            clients,
            random: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(id as u64)),
            known,
            pulled: Vec::new(),
            taste: Taste::All,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn own(&mut self, what: &str, count: usize) -> String {
        format!("w{}{what}{}", self.id, self.random.random_range(0..count))
    }

    fn own_name(&mut self) -> String {
        format!("{}:latest", self.own("n", 4))
    }

    fn some_name(&mut self) -> Option<String> {
        let all: Vec<String> = self.known().names.keys().cloned().collect();
        (!all.is_empty()).then(|| all[self.random.random_range(0..all.len())].clone())
    }

    fn next(&mut self) -> u32 {
        let favourites: &[u32] = match self.taste {
            Taste::All => &[],
            Taste::Images => &[0, 1, 2, 3],
            Taste::Removals => &[0, 4, 4, 4, 5, 13],
            Taste::Snapshots => &[10, 11, 12],
            Taste::Volumes => &[6, 7, 8, 9],
        };
        if !favourites.is_empty() && self.random.random_bool(0.6) {
            return favourites[self.random.random_range(0..favourites.len())];
        }
        self.random.random_range(0..14)
    }

    /// Does something; panics when it is refused without a reason.
    pub async fn step(&mut self) -> Answer {
        let n = self.next();
        let (change, done) = match n {
            0 => self.load().await,
            1 => self.import().await,
            2 => self.pull().await,
            3 => self.tag().await,
            4 => self.remove().await,
            5 => self.prune().await,
            6 => self.volume_create().await,
            7 => self.volume_remove().await,
            8 => self.acquire().await,
            9 => self.release().await,
            10 => self.prepare().await,
            11 => self.unprepare().await,
            12 => self.fork().await,
            _ => (
                Change::Nothing,
                self.clients
                    .system
                    .clone()
                    .collect(pb::CollectRequest {})
                    .await
                    .map(drop)
                    .map_err(Into::into),
            ),
        };
        match done {
            Ok(()) => {
                let mut known = self.known();
                known.doubt = None;
                known.apply(change);
                Answer::Given
            }
            Err(e) if e.kind() == Kind::InUse => {
                self.known().doubt = None;
                Answer::Given
            }
            Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Cancelled) || is_transport(&e) => {
                Answer::Died
            }
            Err(e) => panic!("worker {}: {change:?} was refused: {e} ({:?})", self.id, e.kind()),
        }
    }

    fn doubt(&mut self, change: &Change) {
        self.known().doubt = Some(change.clone());
    }

    async fn load(&mut self) -> (Change, Result<(), Error>) {
        use pb::load_request::Part;
        let picture = self.random.random_range(0..self.corpus.pictures.len());
        let name = self.own_name();
        let corpus = Arc::clone(&self.corpus);
        let picture = &corpus.pictures[picture];
        let change = Change::Name(name.clone(), Some(picture.layers.clone()));
        self.doubt(&change);
        let header = pb::LoadHeader { reference: name, ..Default::default() };
        let mut parts = vec![Part::Header(header)];
        parts.extend(picture.archive.chunks(200_000).map(|c| Part::Data(c.to_vec())));
        let requests: Vec<_> = parts.into_iter().map(|p| pb::LoadRequest { part: Some(p) }).collect();
        let done = match self.clients.images.clone().load(tokio_stream::iter(requests)).await {
            Ok(stream) => whole(stream.into_inner()).await,
            Err(e) => Err(e.into()),
        };
        (change, done)
    }

    async fn import(&mut self) -> (Change, Result<(), Error>) {
        use pb::import_request::Part;
        let layer = self.random.random_range(0..self.corpus.layers.len());
        let name = self.own_name();
        let change = Change::Name(name.clone(), Some(vec![layer]));
        self.doubt(&change);
        let mut parts = vec![Part::Header(pb::ImportHeader { reference: name, ..Default::default() })];
        parts.extend(self.corpus.layers[layer].tar.chunks(200_000).map(|c| Part::Data(c.to_vec())));
        let requests: Vec<_> = parts.into_iter().map(|p| pb::ImportRequest { part: Some(p) }).collect();
        let done = match self.clients.images.clone().import(tokio_stream::iter(requests)).await {
            Ok(stream) => whole(stream.into_inner()).await,
            Err(e) => Err(e.into()),
        };
        (change, done)
    }

    async fn pull(&mut self) -> (Change, Result<(), Error>) {
        if self.pulled.is_empty() {
            return (Change::Nothing, Ok(()));
        }
        let (name, layers) = self.pulled[self.random.random_range(0..self.pulled.len())].clone();
        let change = Change::Name(name.clone(), Some(layers));
        self.doubt(&change);
        let request = pb::PullRequest { reference: name, ..Default::default() };
        let done = match self.clients.images.clone().pull(request).await {
            Ok(stream) => whole(stream.into_inner()).await,
            Err(e) => Err(e.into()),
        };
        (change, done)
    }

    async fn tag(&mut self) -> (Change, Result<(), Error>) {
        let Some(source) = self.some_name() else { return (Change::Nothing, Ok(())) };
        let target = self.own_name();
        let change = Change::Name(target.clone(), Some(self.known().names[&source].clone()));
        self.doubt(&change);
        let done = self.clients.images.clone().tag(pb::TagRequest { source, target }).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn remove(&mut self) -> (Change, Result<(), Error>) {
        let Some(reference) = self.some_name() else { return (Change::Nothing, Ok(())) };
        let change = Change::Name(reference.clone(), None);
        self.doubt(&change);
        let request = pb::RemoveImageRequest { reference, force: self.random.random() };
        let done = self.clients.images.clone().remove(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn prune(&mut self) -> (Change, Result<(), Error>) {
        self.doubt(&Change::Nothing);
        let done = self.clients.images.clone().prune(pb::PruneImagesRequest::default()).await;
        (Change::Nothing, done.map(drop).map_err(Into::into))
    }

    async fn volume_create(&mut self) -> (Change, Result<(), Error>) {
        let name = self.own("v", 3);
        let change = Change::Volume(name.clone(), true);
        self.doubt(&change);
        let request = pb::CreateVolumeRequest { name, ..Default::default() };
        let done = self.clients.volumes.clone().create(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn volume_remove(&mut self) -> (Change, Result<(), Error>) {
        let name = self.own("v", 3);
        let change = Change::Volume(name.clone(), false);
        self.doubt(&change);
        let done = self.clients.volumes.clone().remove(pb::RemoveVolumeRequest { name, force: true }).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn acquire(&mut self) -> (Change, Result<(), Error>) {
        let (name, user) = (self.own("v", 3), self.own("c", 3));
        let change = Change::Use(name.clone(), user.clone(), true);
        self.doubt(&change);
        let with = self.known().snapshots.contains_key(&user);
        let request = pb::AcquireVolumeRequest {
            name,
            snapshot_key: if with { user.clone() } else { String::new() },
            user,
            image_path: "/d1".into(),
            ..Default::default()
        };
        let done = self.clients.volumes.clone().acquire(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn release(&mut self) -> (Change, Result<(), Error>) {
        let user = self.own("c", 3);
        let change = Change::Use(String::new(), user.clone(), false);
        self.doubt(&change);
        let request = pb::ReleaseVolumeRequest { user, remove_anonymous: true };
        let done = self.clients.volumes.clone().release(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn prepare(&mut self) -> (Change, Result<(), Error>) {
        let key = self.own("c", 3);
        let Some(image) = self.some_name() else { return (Change::Nothing, Ok(())) };
        if self.known().snapshots.contains_key(&key) {
            return (Change::Nothing, Ok(()));
        }
        let change = Change::Snapshot(key.clone(), Some(self.known().names[&image].clone()));
        self.doubt(&change);
        let request = pb::PrepareRequest { key, image, ..Default::default() };
        let done = self.clients.snapshots.clone().prepare(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn fork(&mut self) -> (Change, Result<(), Error>) {
        let (source, key) = (self.own("c", 3), self.own("c", 3));
        let Some(layers) = self.known().snapshots.get(&source).cloned() else {
            return (Change::Nothing, Ok(()));
        };
        if self.known().snapshots.contains_key(&key) {
            return (Change::Nothing, Ok(()));
        }
        let change = Change::Snapshot(key.clone(), Some(layers));
        self.doubt(&change);
        let request = pb::ForkRequest { key, source, durable: self.random.random(), ..Default::default() };
        let done = self.clients.snapshots.clone().fork(request).await;
        (change, done.map(drop).map_err(Into::into))
    }

    async fn unprepare(&mut self) -> (Change, Result<(), Error>) {
        let key = self.own("c", 3);
        let change = Change::Snapshot(key.clone(), None);
        self.doubt(&change);
        let done = self.clients.snapshots.clone().remove(pb::RemoveSnapshotRequest { key }).await;
        (change, done.map(drop).map_err(Into::into))
    }
}

async fn whole(stream: tonic::Streaming<pb::Progress>) -> Result<(), Error> {
    drain(stream).await.map(drop)
}

/// The connection broke in the middle of an answer.
fn is_transport(e: &Error) -> bool {
    let text = e.to_string();
    ["transport", "h2 protocol", "connection", "broken pipe", "stream"]
        .iter()
        .any(|w| text.to_lowercase().contains(w))
}
