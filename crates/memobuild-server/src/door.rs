//! Where a connection's requests come in: most go to the table of routes. What is asked by far the most, whether a blob is
//! there and what is in it, takes a short way past it.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
    response::{IntoResponse, Response},
};
use hyper::{
    body::{Body as _, Incoming},
    service::Service as _,
};
use hyper_util::service::TowerToHyperService;
use memobuild_tree::ContentDigest;

use crate::{
    BlobId,
    attend::attend,
    peer::Peer,
    routes::{App, blob},
};

/// What the requests of one connection share.
pub(crate) struct Door {
    app: Arc<App>,
    table: TowerToHyperService<Router>,
    peer: Peer,
}

impl Door {
    pub(crate) fn new(app: Arc<App>, table: Router, peer: Peer) -> Self {
        Self { app, table: TowerToHyperService::new(table), peer }
    }

    pub(crate) async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        if let Some(id) = asked_for(&request) {
            return Ok(self.short_way(id, request.map(|_| Body::empty())).await);
        }
        request.extensions_mut().insert(self.peer.clone());
        self.table.call(request).await
    }

    async fn short_way(&self, id: BlobId, request: Request<Body>) -> Response {
        let app = &self.app;
        attend(app, Some(&self.peer), blob::ROUTE, request, |request, _| async move {
            let answer = match *request.method() {
                Method::HEAD => blob::answer_head(app, id, request.headers()).await,
                _ => blob::answer_get(app, id, request.headers()).await,
            };
            answer.unwrap_or_else(IntoResponse::into_response)
        })
        .await
    }
}

/// The blob that a request asks for, if it is one for the short way.
fn asked_for(request: &Request<Incoming>) -> Option<BlobId> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    let name = request.uri().path().strip_prefix("/cache/").filter(|_| asks)?;
    ContentDigest::from_hex(name).ok().map(BlobId::Content)
}
