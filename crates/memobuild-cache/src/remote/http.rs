//! The server's own protocol over HTTP (docs/api.md).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, Write},
    sync::OnceLock,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memobuild_observe::Secret;
use memobuild_oci::registry::{Certificates, impatient_agent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::{
    Agent, AsSendBody, Body, RequestExt as _, SendBody,
    http::{Method, Request, Response},
};

use super::{Blob, Put, RecordName, Remote, RemoteError, RemoteOptions};

/// The first number of the API's version.
const API: &str = "1";
const VERSION_HEADER: &str = "x-memobuild-api-version";
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest wait for a byte.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest wait for the answer to a blob, which is on disk by then.
const SETTLED: Duration = Duration::from_secs(60);
/// The longest answer that is read into memory, in bytes: a list of 32 records of full length.
const MAX_ANSWER: u64 = 16 << 20;

/// A server that speaks it.
pub(super) struct Http {
    /// Made when first used: that reads the machine's certificates.
    agent: OnceLock<Result<Agent, String>>,
    certificates: Certificates,
    base: String,
    authorization: Option<Secret>,
    traceparent: Option<String>,
}

/// A record as it travels.
#[derive(Deserialize)]
struct Record {
    value: String,
    #[serde(default)]
    stored: bool,
}

#[derive(Deserialize)]
struct Records {
    items: Vec<Record>,
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Sent<'a> {
    value: String,
    blobs: Vec<&'a str>,
}

impl Http {
    pub(super) fn new(options: &RemoteOptions) -> Self {
        Self {
            agent: OnceLock::new(),
            certificates: options.certificates.clone(),
            base: options.url.trim_end_matches('/').to_owned(),
            authorization: options.token.as_ref().map(Secret::bearer),
            traceparent: options.trace.map(|trace| trace.to_string()),
        }
    }

    fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let authorization = self.authorization.as_ref().map(Secret::reveal);
        for (name, value) in [("authorization", authorization), ("traceparent", self.traceparent.as_deref())] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request
    }

    fn agent(&self) -> Result<&Agent, RemoteError> {
        let made = self.agent.get_or_init(|| impatient_agent(&self.certificates, CONNECT, SILENCE));
        made.as_ref().map_err(|why| RemoteError::Foreign(why.clone()))
    }

    /// The answer, if it is one of this API.
    fn ask(&self, request: ureq::http::Result<Request<impl AsSendBody>>) -> Result<Response<Body>, RemoteError> {
        // What can't be made a request of has an address that is none.
        let request = request.map_err(|e| RemoteError::Foreign(e.to_string()))?;
        Self::checked(self.agent()?.run(request).map_err(transport)?)
    }

    /// An answer, if it is one of this API.
    fn checked(response: Response<Body>) -> Result<Response<Body>, RemoteError> {
        let status = response.status().as_u16();
        let version = response.headers().get(VERSION_HEADER).and_then(|v| v.to_str().ok());
        match version.map(|version| version.split('.').next()) {
            Some(Some(API)) => Ok(response),
            Some(_) => Err(RemoteError::Foreign(format!(
                "it speaks version {} of the API, and this memobuild version {API}",
                version.unwrap_or_default()
            ))),
            // A proxy before it may say this.
            None if matches!(status, 408 | 429 | 500..) => Err(refused(response, false)),
            None => Err(RemoteError::Foreign(format!("it is no memobuild server (it answered {status})"))),
        }
    }

    fn get(&self, path: &str) -> Result<Response<Body>, RemoteError> {
        self.ask(self.request(Method::GET, path).body(()))
    }

    fn post(&self, method: Method, path: &str, body: &[u8]) -> Result<Response<Body>, RemoteError> {
        self.ask(self.request(method, path).header("content-type", "application/json").body(body))
    }

    fn refused(&self, response: Response<Body>) -> RemoteError {
        refused(response, self.authorization.is_some())
    }

    /// Sends a record; the blobs that lack, if that was the answer.
    fn put(
        &self,
        method: Method,
        path: &str,
        value: &[u8],
        blobs: &[Blob],
    ) -> Result<Result<Response<Body>, Vec<Blob>>, RemoteError> {
        let names: Vec<String> = blobs.iter().map(|blob| blob.digest.to_string()).collect();
        let sent = Sent { value: BASE64_STANDARD.encode(value), blobs: names.iter().map(String::as_str).collect() };
        let body = serde_json::to_vec(&sent).map_err(|e| RemoteError::Local(e.into()))?;
        let mut response = self.post(method, path, &body)?;
        match response.status().as_u16() {
            200 | 201 => Ok(Ok(response)),
            409 => {
                let refusal: Refusal = parse(&mut response)?;
                Ok(Err(among(blobs, &refusal.missing)?))
            }
            _ => Err(self.refused(response)),
        }
    }
}

impl Remote for Http {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut response = self.get(&format!("/record/{name}"))?;
        match response.status().as_u16() {
            200 => parse::<Record>(&mut response)?.bytes().map(Some),
            404 => Ok(None),
            _ => Err(self.refused(response)),
        }
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        match self.put(Method::PUT, &format!("/record/{name}"), value, blobs)? {
            Ok(mut response) => {
                let record: Record = parse(&mut response)?;
                if record.stored { Ok(Put::Stored) } else { record.bytes().map(Put::Existing) }
            }
            Err(missing) => Ok(Put::Missing(missing)),
        }
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        let mut response = self.get(&format!("/record/{name}/list"))?;
        match response.status().as_u16() {
            200 => parse::<Records>(&mut response)?.items.iter().map(Record::bytes).collect(),
            _ => Err(self.refused(response)),
        }
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        match self.put(Method::POST, &format!("/record/{name}/list"), value, blobs)? {
            Ok(mut response) => {
                // Read to its end, so that the connection can be used again.
                let _: Value = parse(&mut response)?;
                Ok(Vec::new())
            }
            Err(missing) => Ok(missing),
        }
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        let names: Vec<String> = blobs.iter().map(|blob| blob.digest.to_string()).collect();
        let mut response = self.post(Method::POST, "/cache/missing", json!(names).to_string().as_bytes())?;
        match response.status().as_u16() {
            200 => among(blobs, &parse::<Vec<String>>(&mut response)?),
            _ => Err(self.refused(response)),
        }
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let mut response = self.get(&format!("/cache/layer/{}", blob.digest))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(RemoteError::NoBlob(blob.digest)),
            _ => return Err(self.refused(response)),
        }
        let mut from = response.body_mut().as_reader();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = from.read(&mut buffer).map_err(|e| transport(unwrapped(e)))?;
            if count == 0 {
                return Ok(());
            }
            to.write_all(buffer.get(..count).unwrap_or_default()).map_err(RemoteError::Local)?;
        }
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        from.rewind().map_err(RemoteError::Local)?;
        let mut body = from.take(blob.size);
        let request = self
            .request(Method::PUT, &format!("/cache/layer/{}", blob.digest))
            .header("content-length", blob.size)
            .body(SendBody::from_reader(&mut body));
        let request = request.map_err(|e| RemoteError::Foreign(e.to_string()))?;
        let settings = request.with_agent(self.agent()?).configure();
        let request = settings.timeout_recv_response(Some(SETTLED)).timeout_per_read(Some(SETTLED)).build();
        let mut response = Self::checked(request.run().map_err(transport)?)?;
        match response.status().as_u16() {
            200 | 201 => parse::<Value>(&mut response).map(drop),
            _ => Err(self.refused(response)),
        }
    }
}

impl Record {
    fn bytes(&self) -> Result<Vec<u8>, RemoteError> {
        BASE64_STANDARD.decode(&self.value).map_err(|e| RemoteError::Odd(format!("a record's value: {e}")))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(response: &mut Response<Body>) -> Result<T, RemoteError> {
    let mut bytes = Vec::new();
    let read = response.body_mut().as_reader().take(MAX_ANSWER + 1).read_to_end(&mut bytes);
    read.map_err(|e| transport(unwrapped(e)))?;
    serde_json::from_slice(&bytes).map_err(|e| RemoteError::Odd(e.to_string()))
}

/// The blobs of these names. A name that was not asked for is odd.
fn among(blobs: &[Blob], names: &[String]) -> Result<Vec<Blob>, RemoteError> {
    let known: HashMap<String, Blob> = blobs.iter().map(|blob| (blob.digest.to_string(), *blob)).collect();
    let odd = |name: &String| RemoteError::Odd(format!("it lacks {name}, which was not asked for"));
    names.iter().map(|name| known.get(name).copied().ok_or_else(|| odd(name))).collect()
}

/// The error that an answer is.
fn refused(mut response: Response<Body>, with_token: bool) -> RemoteError {
    let status = response.status().as_u16();
    let wish = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let refusal: Refusal = parse(&mut response).unwrap_or_default();
    let detail: String = match refusal.message.is_empty() {
        true => refusal.error,
        false => refusal.message,
    };
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(300).collect();
    match status {
        401 => RemoteError::Unauthorized { with_token, detail },
        403 => RemoteError::Forbidden(detail),
        507 => RemoteError::Full(detail),
        _ => RemoteError::Status { status, retry_after: wish.map(Duration::from_secs), detail },
    }
}

fn transport(error: ureq::Error) -> RemoteError {
    match error {
        ureq::Error::Timeout(which) => RemoteError::TimedOut(which.to_string()),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            RemoteError::Foreign(error.to_string())
        }
        error => RemoteError::Unreachable(error.to_string()),
    }
}

/// The client's own error in one of reading a body.
fn unwrapped(e: io::Error) -> ureq::Error {
    e.downcast::<ureq::Error>().unwrap_or_else(ureq::Error::Io)
}
