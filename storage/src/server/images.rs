//! davit.storage.v1.Images.

use std::path::PathBuf;
use std::sync::Arc;

use davit_contracts::storage as pb;
use davit_contracts::{Error as ContractError, Kind};
use tonic::{Request, Response, Status, Streaming};

use super::registries::access;
use super::streams::{ChunkReader, ChunkStream, ProgressStream, run};
use super::{blocking, messages, status, trees};
use crate::image::intake::{ImportOptions, Input};
use crate::reference::Reference;
use crate::store::Store;

/// The service.
pub(super) struct Images(pub(super) Arc<Store>);

fn bad_request(why: &str) -> Status {
    ContractError::new(Kind::InvalidArgument, why).into()
}

fn absolute(path: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(bad_request("a path must be absolute")) }
}

/// Whether the daemon sees the regular file that its client means.
fn is_same_file(path: &std::path::Path, dev: u64, ino: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.dev() == dev && m.ino() == ino);
    // One that only the client may read is sent by it.
    same && std::fs::File::open(path).is_ok()
}

#[tonic::async_trait]
impl pb::images_server::Images for Images {
    type PullStream = ProgressStream;
    type PushStream = ProgressStream;
    type LoadStream = ProgressStream;
    type SaveStream = ChunkStream;
    type ImportStream = ProgressStream;
    type FromHostStream = ProgressStream;
    type CommitStream = ProgressStream;

    async fn pull(&self, request: Request<pb::PullRequest>) -> Result<Response<ProgressStream>, Status> {
        let request = request.into_inner();
        let reference = Reference::parse(&request.reference).map_err(|e| status(&e.into()))?;
        let platform = messages::platform_of(request.platform);
        let access = access(request.auth, request.plain_http, request.skip_tls_verify, request.ca_pem);
        let store = Arc::clone(&self.0);
        Ok(Response::new(run(|sink| async move {
            if request.all_tags {
                return store.pull_all(&reference, &platform, access, &sink).await.map(drop);
            }
            store.pull(&reference, &platform, access, &sink).await.map(drop)
        })))
    }

    async fn push(&self, request: Request<pb::PushRequest>) -> Result<Response<ProgressStream>, Status> {
        let request = request.into_inner();
        let reference = Reference::parse(&request.reference).map_err(|e| status(&e.into()))?;
        let access = access(request.auth, request.plain_http, request.skip_tls_verify, request.ca_pem);
        let store = Arc::clone(&self.0);
        Ok(Response::new(run(|sink| async move {
            store.push(&reference, request.all_tags, access, &sink).await.map(drop)
        })))
    }

    async fn load(
        &self,
        request: Request<Streaming<pb::LoadRequest>>,
    ) -> Result<Response<ProgressStream>, Status> {
        use pb::load_request::Part;
        let mut stream = request.into_inner();
        let Some(Part::Header(header)) = stream.message().await?.and_then(|m| m.part) else {
            return Err(bad_request("the first message of a load must be its header"));
        };
        let input = if header.path.is_empty() {
            Input::Stream(Box::new(ChunkReader::start(stream, |m: pb::LoadRequest| match m.part {
                Some(Part::Data(data)) => Some(data),
                _ => None,
            })))
        } else {
            let path = absolute(&header.path)?;
            if header.path_ino != 0 && !is_same_file(&path, header.path_dev, header.path_ino) {
                let why = format!("the daemon sees another file than its client at {}", path.display());
                return Err(ContractError::new(Kind::WrongState, why).into());
            }
            Input::Path(path)
        };
        let platform = messages::platform_of(header.platform);
        let store = Arc::clone(&self.0);
        Ok(Response::new(run(|sink| async move {
            store.load(input, &header.reference, &platform, &sink).await.map(drop)
        })))
    }

    async fn save(&self, request: Request<pb::SaveRequest>) -> Result<Response<ChunkStream>, Status> {
        Ok(Response::new(trees::save(&self.0, request.into_inner())?))
    }

    async fn import(
        &self,
        request: Request<Streaming<pb::ImportRequest>>,
    ) -> Result<Response<ProgressStream>, Status> {
        use pb::import_request::Part;
        let mut stream = request.into_inner();
        let Some(Part::Header(header)) = stream.message().await?.and_then(|m| m.part) else {
            return Err(bad_request("the first message of an import must be its header"));
        };
        let input = if header.path.is_empty() {
            Input::Stream(Box::new(ChunkReader::start(stream, |m: pb::ImportRequest| match m.part {
                Some(Part::Data(data)) => Some(data),
                _ => None,
            })))
        } else {
            Input::Path(absolute(&header.path)?)
        };
        let options =
            ImportOptions { reference: header.reference, changes: header.changes, message: header.message };
        let store = Arc::clone(&self.0);
        Ok(Response::new(run(|sink| async move { store.import(input, options, &sink).await.map(drop) })))
    }

    async fn from_host(
        &self,
        request: Request<pb::FromHostRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let r = request.into_inner();
        let store = Arc::clone(&self.0);
        Ok(Response::new(run(|sink| async move {
            store.from_host(&r.reference, &r.programs, &r.paths, &r.changes, &sink).await.map(drop)
        })))
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<ProgressStream>, Status> {
        Ok(Response::new(trees::commit(&self.0, request.into_inner())))
    }

    async fn list(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let r = request.into_inner();
        let filters = messages::filters(r.filters, r.filter);
        let images = blocking(&self.0, move |store| {
            Ok(store.list_images(&filters, r.short)?.into_iter().map(messages::image).collect())
        })
        .await?;
        Ok(Response::new(pb::ListImagesResponse { images }))
    }

    async fn inspect(
        &self,
        request: Request<pb::InspectImageRequest>,
    ) -> Result<Response<pb::InspectImageResponse>, Status> {
        let asked = request.into_inner().reference;
        let details = blocking(&self.0, move |store| store.inspect_image(&asked)).await?;
        Ok(Response::new(messages::details(details, self.0.snapshots.driver().name())))
    }

    async fn tag(&self, request: Request<pb::TagRequest>) -> Result<Response<pb::TagResponse>, Status> {
        let r = request.into_inner();
        let reference = blocking(&self.0, move |store| store.tag_image(&r.source, &r.target)).await?;
        Ok(Response::new(pb::TagResponse { reference }))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveImageRequest>,
    ) -> Result<Response<pb::RemoveImageResponse>, Status> {
        let r = request.into_inner();
        let removed = blocking(&self.0, move |store| store.remove_image(&r.reference, r.force)).await?;
        Ok(Response::new(pb::RemoveImageResponse { untagged: removed.untagged, deleted: removed.deleted }))
    }

    async fn prune(
        &self,
        request: Request<pb::PruneImagesRequest>,
    ) -> Result<Response<pb::PruneImagesResponse>, Status> {
        let r = request.into_inner();
        let filters = messages::filters(r.filters, r.filter);
        let removed = blocking(&self.0, move |store| store.prune_images(r.all, &filters)).await?;
        Ok(Response::new(pb::PruneImagesResponse {
            untagged: removed.untagged,
            deleted: removed.deleted,
            reclaimed_bytes: removed.reclaimed,
        }))
    }
}
