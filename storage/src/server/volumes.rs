//! davit.storage.v1.Volumes.

use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::{blocking, messages, unsupported};
use crate::error::Error;
use crate::store::Store;
use crate::volume::VolumeRecord;

/// The service.
pub(super) struct Volumes(pub(super) Arc<Store>);

fn fits(volume: &VolumeRecord, key: &str, value: &str) -> Result<bool, Error> {
    Ok(match key {
        "name" => volume.name.contains(value),
        "driver" => value == "local",
        "dangling" => volume.users.is_empty() == matches!(value, "true" | "1"),
        "label" => {
            let (name, wanted) = value.split_once('=').map_or((value, None), |(n, v)| (n, Some(v)));
            volume.labels.get(name).is_some_and(|v| wanted.is_none_or(|w| w == v))
        }
        other => return Err(Error::UnknownFilter(other.to_owned())),
    })
}

#[tonic::async_trait]
impl pb::volumes_server::Volumes for Volumes {
    async fn create(
        &self,
        request: Request<pb::CreateVolumeRequest>,
    ) -> Result<Response<pb::Volume>, Status> {
        let r = request.into_inner();
        let volume = blocking(&self.0, move |store| {
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
        let filters = messages::sorted(request.into_inner().filters);
        let volumes = blocking(&self.0, move |store| {
            let mut out = Vec::new();
            'volumes: for volume in store.volumes.list()? {
                for (key, value) in &filters {
                    if !fits(&volume, key, value)? {
                        continue 'volumes;
                    }
                }
                out.push(messages::volume(store, &volume));
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
        let response = blocking(&self.0, move |store| {
            let copy = !r.no_copy && !r.snapshot_key.is_empty() && !r.image_path.is_empty();
            let volume = store.volumes.acquire(&r.name, &r.user, |data| {
                if copy { store.populate(&r.snapshot_key, &r.image_path, data) } else { Ok(()) }
            })?;
            let source = store.volumes.data(&volume.name).display().to_string();
            let target = r.image_path.trim_start_matches('/').to_owned();
            let options = vec!["rbind".to_owned()];
            Ok(pb::AcquireVolumeResponse {
                volume: Some(messages::volume(store, &volume)),
                mount: Some(pb::Mount { r#type: "bind".into(), source, options, target }),
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
        _: Request<pb::PruneVolumesRequest>,
    ) -> Result<Response<pb::PruneVolumesResponse>, Status> {
        Err(unsupported("prune volumes"))
    }
}
