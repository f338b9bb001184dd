//! davit.storage.v1.Volumes.

use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::streams::Abandoned;
use super::{blocking, messages};
use crate::error::Error;
use crate::filter::Filters;
use crate::image::prepare::copy_volume;
use crate::store::Store;
use crate::volume::{VolumeError, VolumeRecord, Wish};

/// The service.
pub(super) struct Volumes(pub(super) Arc<Store>);

fn fits(volume: &VolumeRecord, filters: &Filters) -> Result<bool, Error> {
    let dangling = filters.flag("dangling")?;
    Ok(filters.any("name", |name| volume.name.contains(name))
        && filters.any("driver", |driver| driver == "local")
        && dangling.is_none_or(|wanted| volume.users.is_empty() == wanted)
        && filters.labels(&volume.labels))
}

#[tonic::async_trait]
impl pb::volumes_server::Volumes for Volumes {
    async fn create(
        &self,
        request: Request<pb::CreateVolumeRequest>,
    ) -> Result<Response<pb::Volume>, Status> {
        let r = request.into_inner();
        let volume = blocking(&self.0, move |store| {
            if !matches!(r.driver.as_str(), "" | "local") {
                return Err(VolumeError::UnknownDriver(r.driver).into());
            }
            let made =
                store.volumes.create(&r.name, messages::sorted(r.labels), messages::sorted(r.options))?;
            Ok(messages::volume(store, &made))
        })
        .await?;
        Ok(Response::new(volume))
    }

    async fn list(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        let r = request.into_inner();
        let filters = messages::filters(r.filters, r.filter);
        let volumes = blocking(&self.0, move |store| {
            filters.only(&["name", "driver", "dangling", "label", "label!"])?;
            let mut out = Vec::new();
            for volume in store.volumes.list()? {
                if fits(&volume, &filters)? {
                    out.push(messages::volume(store, &volume));
                }
            }
            Ok(out)
        })
        .await?;
        Ok(Response::new(pb::ListVolumesResponse { volumes }))
    }

    async fn inspect(
        &self,
        request: Request<pb::InspectVolumeRequest>,
    ) -> Result<Response<pb::Volume>, Status> {
        let name = request.into_inner().name;
        let volume =
            blocking(&self.0, move |store| Ok(messages::volume(store, &store.volumes.get(&name)?))).await?;
        Ok(Response::new(volume))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveVolumeRequest>,
    ) -> Result<Response<pb::RemoveVolumeResponse>, Status> {
        let r = request.into_inner();
        blocking(&self.0, move |store| Ok(store.volumes.remove(&r.name, r.force)?)).await?;
        Ok(Response::new(pb::RemoveVolumeResponse {}))
    }

    async fn acquire(
        &self,
        request: Request<pb::AcquireVolumeRequest>,
    ) -> Result<Response<pb::AcquireVolumeResponse>, Status> {
        let r = request.into_inner();
        let abandoned = Abandoned::default();
        let stop = Arc::clone(&abandoned.0);
        let response = blocking(&self.0, move |store| {
            // A part of a volume must be there already, so that there is nothing to copy.
            let named = !r.snapshot_key.is_empty() && !r.image_path.is_empty();
            let copy = named && !r.no_copy && r.subpath.is_empty();
            let (labels, options) = (messages::sorted(r.labels), messages::sorted(r.options));
            let wish = Wish { name: &r.name, user: &r.user, labels, options };
            let original = match r.copy_from.as_str() {
                "" => None,
                name => Some(store.volumes.source(name)?),
            };
            let volume = store.volumes.acquire(wish, |data| {
                if let Some(original) = &original {
                    return copy_volume(original, data, &stop).map(|()| true);
                }
                if copy { store.populate(&r.snapshot_key, &r.image_path, data) } else { Ok(false) }
            })?;
            let mount = store.volumes.mount(&volume, &r.subpath)?;
            Ok(pb::AcquireVolumeResponse {
                volume: Some(messages::volume(store, &volume)),
                mount: Some(pb::Mount {
                    r#type: mount.kind.into(),
                    source: mount.source.display().to_string(),
                    options: mount.options,
                    target: r.image_path.trim_start_matches('/').to_owned(),
                }),
            })
        })
        .await?;
        Ok(Response::new(response))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseVolumeRequest>,
    ) -> Result<Response<pb::ReleaseVolumeResponse>, Status> {
        let r = request.into_inner();
        let removed =
            blocking(&self.0, move |store| Ok(store.volumes.release(&r.user, r.remove_anonymous)?)).await?;
        Ok(Response::new(pb::ReleaseVolumeResponse { removed }))
    }

    async fn prune(
        &self,
        request: Request<pb::PruneVolumesRequest>,
    ) -> Result<Response<pb::PruneVolumesResponse>, Status> {
        let r = request.into_inner();
        let filters = messages::filters(r.filters, r.filter);
        let (removed, reclaimed_bytes) =
            blocking(&self.0, move |store| store.volumes.prune(r.all, &filters)).await?;
        Ok(Response::new(pb::PruneVolumesResponse { removed, reclaimed_bytes }))
    }
}
