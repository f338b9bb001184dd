//! davit.storage.v1.Registries.

use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::status;
use crate::error::Error;
use crate::reference::{DEFAULT_DOMAIN, InvalidReference, Reference};
use crate::registry::{Access, login};
use crate::store::Store;

/// The service.
pub(super) struct Registries(pub(super) Arc<Store>);

/// What a request says of its registry.
pub(super) fn access(
    auth: Option<pb::RegistryAuth>,
    plain_http: bool,
    skip_tls_verify: bool,
    ca_pem: Vec<u8>,
) -> Access {
    let auth = auth.unwrap_or_default();
    Access {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        plain_http,
        skip_tls_verify,
        ca_pem,
        scopes: Vec::new(),
    }
}

#[tonic::async_trait]
impl pb::registries_server::Registries for Registries {
    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let request = request.into_inner();
        let domain = domain(&request.registry).map_err(|e| status(&e.into()))?;
        let access = access(request.auth, request.plain_http, request.skip_tls_verify, request.ca_pem);
        let token = login(&domain, access, self.0.origin()).await.map_err(|e| status(&Error::from(e)))?;
        Ok(Response::new(pb::LoginResponse { identity_token: token }))
    }
}

/// A registry's name as references have it.
fn domain(registry: &str) -> Result<String, InvalidReference> {
    if registry.is_empty() {
        return Ok(DEFAULT_DOMAIN.to_owned());
    }
    let grammar = || InvalidReference::Grammar {
        text: registry.to_owned(),
        part: registry.to_owned(),
        what: "registry",
    };
    // A host without a dot would be read as the first part of a repository.
    if registry.contains('/') || registry.contains('@') {
        return Err(grammar());
    }
    let named = Reference::parse(&format!("{registry}/x/y")).map_err(|_| grammar())?;
    if named.path() == "x/y" { Ok(named.domain().to_owned()) } else { Err(grammar()) }
}
