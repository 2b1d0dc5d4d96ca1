//! `GET /openapi.json`: the API's description (OpenAPI 3.1), made from the handlers and types that are its code.
//!
//! A route that is added is described by `#[utoipa::path]` at its handler and named in the list below; a test compares the
//! routes with the list.

use std::sync::LazyLock;

use axum::{body::Body, http::StatusCode, response::Response};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, HeaderBuilder, InfoBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, PathItem},
        schema::{ObjectBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{blob, gc, health, metrics, missing, record, schemas};
use crate::{API_VERSION, reply};

#[derive(OpenApi)]
#[openapi(
    paths(
        blob::head, blob::get, blob::put, blob::head_layer, blob::get_layer, blob::put_layer,
        missing::missing,
        record::get, record::put, record::list, record::add,
        gc::gc, health::healthz, health::readyz, metrics::metrics, openapi
    ),
    components(schemas(
        schemas::ErrorBody, schemas::Stored, schemas::RecordBody, schemas::RecordStored, schemas::Items, schemas::Added,
        schemas::Collected, schemas::Status
    )),
    tags(
        (name = "blobs", description = "Bytes by their digest"),
        (name = "records", description = "Small values by key, with the blobs that they name"),
        (name = "care", description = "The server itself"),
    ),
    security((), ("token" = []), ("certificate" = [])),
    modifiers(&Common)
)]
struct Document;

/// What is said of every route.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document.info = InfoBuilder::new()
            .title("memobuild server")
            .version(API_VERSION)
            .description(Some("A cache of blobs and records that several machines share."))
            .license(Some(utoipa::openapi::LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
            .build();
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("As `memobuild server token add` prints it."))
            .build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let certificate = SecurityScheme::MutualTls {
            description: Some("By an authority of --tls-client-ca.".to_owned()),
            deprecated: None,
            extensions: None,
        };
        components.add_security_scheme("certificate", certificate);
        let text = || ObjectBuilder::new().schema_type(Type::String).build();
        let version = HeaderBuilder::new().schema(Some(text())).description(Some("Of this API.")).build();
        let id = HeaderBuilder::new().schema(Some(text())).description(Some("Of the request, in logs too.")).build();
        let failed = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let other = ResponseBuilder::new().description("Any other answer is an error.");
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), RefOr::T(other.content("application/json", failed.clone()).build()));
            for response in responses.values_mut() {
                if let RefOr::T(response) = response {
                    response.headers.insert("X-MemoBuild-API-Version".to_owned(), version.clone().into());
                    response.headers.insert("X-Request-Id".to_owned(), id.clone().into());
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.head, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
        .into_iter()
        .flatten()
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(Document::openapi()).unwrap_or(Value::Null));

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "care", security(()),
    responses((status = 200, description = "The API as OpenAPI 3.1", body = Object)))]
pub(super) async fn openapi() -> Response<Body> {
    reply::json(StatusCode::OK, &DOCUMENT)
}

#[cfg(test)]
mod tests;
