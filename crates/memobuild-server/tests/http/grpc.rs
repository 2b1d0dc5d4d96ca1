//! The Remote Execution API's cache, call by call.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        self as rex, action_cache_client::ActionCacheClient, batch_update_blobs_request,
        capabilities_client::CapabilitiesClient, content_addressable_storage_client::ContentAddressableStorageClient,
    },
    google::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest, byte_stream_client::ByteStreamClient},
};
use memobuild_server::{Scope, add_token};
use prost::Message as _;
use tonic::{Code, Status, codegen::tokio_stream, transport::Channel};

use crate::{
    audit,
    bazel::sha256,
    client::{Running, connect, noise},
    hooks::{SECRET, receiver},
};

const BLAKE3: i32 = rex::digest_function::Value::Blake3 as i32;
const ZSTD: i32 = rex::compressor::Value::Zstd as i32;

fn channel(server: &Running) -> Channel {
    Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect_lazy()
}

fn cas(server: &Running) -> ContentAddressableStorageClient<Channel> {
    ContentAddressableStorageClient::new(channel(server))
}

fn bytes(server: &Running) -> ByteStreamClient<Channel> {
    ByteStreamClient::new(channel(server))
}

fn results(server: &Running) -> ActionCacheClient<Channel> {
    ActionCacheClient::new(channel(server))
}

fn digest(bytes: &[u8]) -> rex::Digest {
    rex::Digest { hash: sha256(bytes), size_bytes: bytes.len() as i64 }
}

fn blake3(bytes: &[u8]) -> rex::Digest {
    rex::Digest { hash: blake3::hash(bytes).to_hex().to_string(), size_bytes: bytes.len() as i64 }
}

async fn put(server: &Running, blobs: &[(rex::Digest, Vec<u8>, i32)], digest_function: i32) -> Vec<Code> {
    let requests = blobs.iter().map(|(digest, data, compressor)| batch_update_blobs_request::Request {
        digest: Some(digest.clone()),
        data: data.clone(),
        compressor: *compressor,
    });
    let request = rex::BatchUpdateBlobsRequest { requests: requests.collect(), digest_function, ..Default::default() };
    let reply = cas(server).batch_update_blobs(request).await.unwrap().into_inner();
    reply.responses.iter().map(|r| Code::from_i32(r.status.as_ref().unwrap().code)).collect()
}

async fn store(server: &Running, data: &[u8]) -> rex::Digest {
    assert_eq!(put(server, &[(digest(data), data.to_vec(), 0)], 0).await, [Code::Ok]);
    digest(data)
}

async fn read(server: &Running, name: &str, read_offset: i64, read_limit: i64) -> Result<Vec<u8>, Status> {
    let request = ReadRequest { resource_name: name.into(), read_offset, read_limit };
    let mut stream = bytes(server).read(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = stream.message().await? {
        data.extend(piece.data);
    }
    Ok(data)
}

/// The messages of an upload from an offset on.
fn messages(name: &str, data: &[u8], offset: i64, finish: bool) -> Vec<WriteRequest> {
    let mut messages = Vec::new();
    let mut write_offset = offset;
    for piece in data.chunks(100_000) {
        let resource_name = if messages.is_empty() { name.to_owned() } else { String::new() };
        messages.push(WriteRequest { resource_name, write_offset, finish_write: false, data: piece.to_vec() });
        write_offset += piece.len() as i64;
    }
    if let Some(last) = messages.last_mut() {
        last.finish_write = finish;
    }
    messages
}

async fn write(server: &Running, messages: Vec<WriteRequest>) -> Result<i64, Status> {
    let reply = bytes(server).write(tokio_stream::iter(messages)).await?;
    Ok(reply.into_inner().committed_size)
}

async fn committed(server: &Running, name: &str) -> (i64, bool) {
    let request = QueryWriteStatusRequest { resource_name: name.into() };
    let reply = bytes(server).query_write_status(request).await.unwrap().into_inner();
    (reply.committed_size, reply.complete)
}

#[tokio::test(flavor = "multi_thread")]
async fn batches() {
    let server = Running::new();
    let (small, other, big) = (noise(1, 1000), noise(2, 2000), vec![b'x'; 100_000]);
    let packed = zstd::bulk::compress(&big, 3).unwrap();
    let codes = put(
        &server,
        &[
            (digest(&small), small.clone(), 0),
            (digest(&big), packed.clone(), ZSTD),
            (digest(&other), small.clone(), 0),
            (rex::Digest { size_bytes: 7, ..digest(&other) }, other.clone(), 0),
            (digest(&other), b"no zstd".to_vec(), ZSTD),
            (digest(b""), Vec::new(), 0),
        ],
        0,
    )
    .await;
    let bad = Code::InvalidArgument;
    assert_eq!(codes, [Code::Ok, Code::Ok, bad, bad, bad, Code::Ok]);
    assert_eq!(put(&server, &[(blake3(&other), other.clone(), 0)], BLAKE3).await, [Code::Ok]);
    assert!(server.get(&format!("/cache/{}", blake3(&other).hash)).body == other);
    assert!(server.get(&format!("/cas/{}", digest(&big).hash)).body == big);

    let wrong_size = rex::Digest { size_bytes: 1, ..digest(&small) };
    let missing = rex::FindMissingBlobsRequest {
        blob_digests: vec![digest(&small), digest(&other), digest(&big), digest(b""), wrong_size.clone()],
        ..Default::default()
    };
    let missing = cas(&server).find_missing_blobs(missing).await.unwrap().into_inner();
    assert_eq!(missing.missing_blob_digests, [digest(&other), wrong_size]);

    let request = |digests, acceptable_compressors| rex::BatchReadBlobsRequest {
        digests,
        acceptable_compressors,
        ..Default::default()
    };
    let digests = vec![digest(&small), digest(&other), digest(&big), digest(b"")];
    let reply = cas(&server).batch_read_blobs(request(digests.clone(), Vec::new())).await.unwrap().into_inner();
    let found: Vec<_> = reply.responses.iter().map(|r| (r.status.as_ref().unwrap().code, r.data.as_slice())).collect();
    assert!(found == [(0, &*small), (Code::NotFound as i32, b"".as_slice()), (0, &*big), (0, b"")]);
    let reply = cas(&server).batch_read_blobs(request(digests, vec![ZSTD])).await.unwrap().into_inner();
    assert!(reply.responses[2].compressor == ZSTD && reply.responses[2].data.len() < 1000);
    assert!(zstd::bulk::decompress(&reply.responses[2].data, big.len()).unwrap() == big);

    let huge = rex::Digest { size_bytes: 5 << 20, ..digest(&small) };
    let error = cas(&server).batch_read_blobs(request(vec![huge], Vec::new())).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let request = rex::FindMissingBlobsRequest { digest_function: 2, ..Default::default() };
    assert_eq!(cas(&server).find_missing_blobs(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_webhooks_are_told_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit");
    let (url, told) = receiver(&["200 Yes"]);
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let server = Running::with(|config| {
        config.security.audit_log = Some(log.clone());
        config.security.webhooks = vec![url];
        config.security.webhook_secret = Some(secret);
    });
    let (data, other) = (noise(1, 1000), noise(2, 1000));
    let wrong = rex::Digest { hash: "00".into(), ..digest(&data) };
    let blobs = [(wrong, data.clone(), 0), (digest(&data), other.clone(), 0), (digest(&other), other.clone(), 0)];
    put(&server, &blobs, 0).await;
    let name = format!("uploads/1/blobs/{}/{}", digest(&data).hash, data.len());
    assert_eq!(write(&server, messages(&name, &other, 0, true)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(write(&server, messages("nothing", &data, 0, true)).await.unwrap_err().code(), Code::InvalidArgument);
    let update = rex::UpdateActionResultRequest { action_digest: Some(digest(&data)), ..Default::default() };
    assert_eq!(results(&server).update_action_result(update).await.unwrap_err().code(), Code::InvalidArgument);
    write(&server, messages(&name, &data, 0, true)).await.unwrap();

    let of = |line: serde_json::Value| {
        let call = line["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        serde_json::json!([line["event"], call, line["status"], line["error"]])
    };
    let lines: Vec<_> = audit::lines(&log).into_iter().map(of).collect();
    let refused = |call, code| serde_json::json!(["refusal", call, 400, code]);
    assert_eq!(
        lines,
        [
            refused("BatchUpdateBlobs", "cas_integrity_failure"),
            refused("Write", "cas_integrity_failure"),
            refused("Write", "invalid_path"),
            refused("UpdateActionResult", "invalid_value"),
            serde_json::json!(["change", "Write", 200, null]),
        ]
    );
    let event = told.recv_timeout(Duration::from_secs(30)).unwrap().json();
    assert_eq!(event["event"], "integrity.failure");
    assert!(event["data"]["path"].as_str().unwrap().ends_with("/BatchUpdateBlobs"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams() {
    let server = Running::new();
    let data = noise(1, 3_000_000);
    let (hash, size) = (digest(&data).hash, data.len());
    let name = format!("main/blobs/{hash}/{size}");
    assert_eq!(read(&server, &name, 0, 0).await.unwrap_err().code(), Code::NotFound);
    let upload = format!("main/uploads/1b4e28ba-2fa1-11d2-883f-0016d3cca427/blobs/{hash}/{size}");
    assert_eq!(committed(&server, &upload).await, (0, false));
    assert_eq!(write(&server, messages(&upload, &data, 0, true)).await.unwrap(), 3_000_000);
    assert_eq!(committed(&server, &upload).await, (3_000_000, true));
    assert!(read(&server, &name, 0, 0).await.unwrap() == data);
    assert!(read(&server, &name, 1_000_000, 700_001).await.unwrap() == data[1_000_000..1_700_001]);
    assert!(read(&server, &name, 3_000_000, 0).await.unwrap().is_empty());
    for (offset, limit, code) in
        [(3_000_001, 0, Code::OutOfRange), (-1, 0, Code::OutOfRange), (0, -1, Code::InvalidArgument)]
    {
        assert_eq!(read(&server, &name, offset, limit).await.unwrap_err().code(), code);
    }
    // Of what is there nothing need be sent.
    assert_eq!(write(&server, messages(&upload, &data[..10], 0, false)).await.unwrap(), 3_000_000);

    let packed = read(&server, &format!("compressed-blobs/zstd/{hash}/{size}"), 1_000_000, 0).await.unwrap();
    assert!(zstd::stream::decode_all(&*packed).unwrap() == data[1_000_000..]);
    let empty = sha256(b"");
    assert!(read(&server, &format!("blobs/{empty}/0"), 0, 0).await.unwrap().is_empty());
    let packed = read(&server, &format!("compressed-blobs/zstd/{empty}/0"), 0, 0).await.unwrap();
    assert!(zstd::stream::decode_all(&*packed).unwrap().is_empty());

    let text = b"the same again ".repeat(50_000);
    let packed = zstd::bulk::compress(&text, 3).unwrap();
    let hash = blake3(&text).hash;
    let upload = format!("uploads/u/compressed-blobs/zstd/blake3/{hash}/{}", text.len());
    assert_eq!(write(&server, messages(&upload, &packed, 0, true)).await.unwrap(), packed.len() as i64);
    assert_eq!(write(&server, messages(&upload, &packed, 0, true)).await.unwrap(), -1);
    assert!(server.get(&format!("/cache/{hash}")).body == text);

    for (name, messages) in [
        ("other bytes", messages(&format!("uploads/u/blobs/{}/3", sha256(b"abc")), b"abd", 0, true)),
        ("fewer", messages(&format!("uploads/u/blobs/{}/3", sha256(b"abc")), b"ab", 0, true)),
        ("more", messages(&format!("uploads/u/blobs/{}/3", sha256(b"abc")), b"abcd", 0, true)),
        ("an offset that was never reached", messages(&format!("uploads/u/blobs/{}/3", sha256(b"abc")), b"c", 2, true)),
        ("no zstd", messages(&format!("uploads/u/compressed-blobs/zstd/{}/3", sha256(b"abc")), b"abc", 0, true)),
        ("no name", messages("blobs", b"abc", 0, true)),
        ("no message", Vec::new()),
    ] {
        assert_eq!(write(&server, messages).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    assert_eq!(server.get(&format!("/cas/{}", sha256(b"abc"))).status, 404);
    let mut gap =
        messages(&format!("uploads/u/blobs/{}/200000", sha256(&noise(9, 200_000))), &noise(9, 200_000), 0, true);
    gap[1].write_offset = 150_000;
    assert_eq!(write(&server, gap).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_on() {
    let server = Running::new();
    let data = noise(1, 2_000_000);
    let upload = format!("uploads/u1/blobs/{}/{}", digest(&data).hash, data.len());
    // One that ends without its end.
    assert_eq!(write(&server, messages(&upload, &data[..700_000], 0, false)).await.unwrap(), 700_000);
    assert_eq!(committed(&server, &upload).await, (700_000, false));
    let error = write(&server, messages(&upload, &data[600_000..], 600_000, true)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    // One whose client goes away.
    let (sender, receiver) = tokio::sync::mpsc::channel(100);
    for message in messages(&upload, &data[700_000..1_500_000], 700_000, false) {
        sender.send(message).await.unwrap();
    }
    let mut client = bytes(&server);
    let call = client.write(Receiving(receiver));
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    drop((client, sender));
    let mut reached = (0, false);
    for _ in 0..600 {
        reached = committed(&server, &upload).await;
        if reached.0 > 700_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reached.0 > 700_000 && !reached.1, "{reached:?}");
    let from = reached.0 as usize;
    assert_eq!(write(&server, messages(&upload, &data[from..], reached.0, true)).await.unwrap(), 2_000_000);
    assert!(server.get(&format!("/cas/{}", digest(&data).hash)).body == data);
    // Compressed, the offset counts bytes of the blob.
    let text = b"words and words ".repeat(20_000);
    let upload = format!("uploads/u2/compressed-blobs/zstd/{}/{}", digest(&text).hash, text.len());
    let (first, second) = text.split_at(100_000);
    let packed = |part| zstd::bulk::compress(part, 3).unwrap();
    assert_eq!(write(&server, messages(&upload, &packed(first), 0, false)).await.unwrap(), 100_000);
    write(&server, messages(&upload, &packed(second), 100_000, true)).await.unwrap();
    assert!(server.get(&format!("/cas/{}", digest(&text).hash)).body == text);
}

/// What a channel brings, as a stream.
struct Receiving(tokio::sync::mpsc::Receiver<WriteRequest>);

impl tokio_stream::Stream for Receiving {
    type Item = WriteRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<WriteRequest>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_need_their_outputs() {
    let server = Running::new();
    let (output, log) = (noise(1, 5000), b"said so".to_vec());
    let file = |data: &[u8]| rex::OutputFile { path: "out".into(), digest: Some(digest(data)), ..Default::default() };
    let result = rex::ActionResult {
        output_files: vec![file(&output)],
        stdout_digest: Some(digest(&log)),
        exit_code: 3,
        ..Default::default()
    };
    let action = digest(b"an action");
    let update = |result: &rex::ActionResult| rex::UpdateActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.clone()),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    let get = rex::GetActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.clone()),
        ..Default::default()
    };
    let error = results(&server).update_action_result(update(&result)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(results(&server).get_action_result(get.clone()).await.unwrap_err().code(), Code::NotFound);
    store(&server, &output).await;
    store(&server, &log).await;
    results(&server).update_action_result(update(&result)).await.unwrap();
    assert_eq!(results(&server).get_action_result(get.clone()).await.unwrap().into_inner(), result);
    // The same over HTTP, and under no other instance.
    let reply = server.get(&format!("/main/ac/{}", action.hash));
    assert_eq!(rex::ActionResult::decode(&*reply.body).unwrap(), result);
    assert_eq!(server.get(&format!("/ac/{}", action.hash)).status, 404);

    let inlined = rex::GetActionResultRequest {
        inline_stdout: true,
        inline_output_files: vec!["out".into(), "none".into()],
        ..get.clone()
    };
    let found = results(&server).get_action_result(inlined).await.unwrap().into_inner();
    assert!(found.stdout_raw == log && found.output_files[0].contents == output);

    let other = store(&server, b"another output").await;
    let newer = rex::ActionResult { output_files: vec![file(b"another output")], ..Default::default() };
    results(&server).update_action_result(update(&newer)).await.unwrap();
    assert_eq!(results(&server).get_action_result(get.clone()).await.unwrap().into_inner(), newer);
    // Last uses are kept in seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    server.send("POST", "/gc?days=0", &[], b"");
    assert_eq!(results(&server).get_action_result(get).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(server.get(&format!("/cas/{}", other.hash)).status, 404);

    let none = rex::UpdateActionResultRequest { action_digest: None, ..update(&newer) };
    assert_eq!(results(&server).update_action_result(none).await.unwrap_err().code(), Code::InvalidArgument);
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    let route = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
    for line in [
        format!("memobuild_http_requests_total{{method=\"POST\",route=\"{route}\",status=\"200\"}} 4"),
        format!("memobuild_grpc_failures_total{{code=\"9\",route=\"{route}\"}} 1"),
        format!("memobuild_grpc_failures_total{{code=\"3\",route=\"{route}\"}} 1"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees() {
    let server = Running::new();
    let leaf = |name: String| {
        let node = rex::FileNode { name, digest: Some(digest(b"x")), ..Default::default() };
        rex::Directory { files: vec![node], ..Default::default() }
    };
    let mut expected = 1;
    let mut root = rex::Directory::default();
    for n in 0..30 {
        let below = leaf(format!("file {n}"));
        // Two are missing.
        let below = match n {
            0 | 1 => digest(&below.encode_to_vec()),
            _ => store(&server, &below.encode_to_vec()).await,
        };
        expected += usize::from(n > 1);
        root.directories.push(rex::DirectoryNode { name: format!("d{n}"), digest: Some(below.clone()) });
        // Equal ones are told once.
        root.directories.push(rex::DirectoryNode { name: format!("e{n}"), digest: Some(below) });
    }
    let root = store(&server, &root.encode_to_vec()).await;
    let request = rex::GetTreeRequest { root_digest: Some(root), page_size: 7, ..Default::default() };
    let mut pages = cas(&server).get_tree(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        assert!(page.directories.len() <= 7 && page.next_page_token.is_empty());
        found.extend(page.directories);
    }
    assert_eq!(found.len(), expected);
    assert_eq!(found[0].directories.len(), 60);
    let request = rex::GetTreeRequest { root_digest: Some(digest(b"none")), ..Default::default() };
    assert_eq!(cas(&server).get_tree(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_capabilities() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let reader = add_token(&file, "reader", Scope::Read).unwrap();
    let writer = add_token(&file, "writer", Scope::Write).unwrap();
    let server = Running::with(|config| config.tokens = Some(file));
    fn with<T>(token: &str, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if !token.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    }
    for (token, expected) in [(&*reader, Some(false)), (&*writer, Some(true)), ("", None), ("mb_wrong", None)] {
        let mut client = CapabilitiesClient::new(channel(&server));
        let reply = client.get_capabilities(with(token, rex::GetCapabilitiesRequest::default())).await;
        let Some(enabled) = expected else {
            assert_eq!(reply.unwrap_err().code(), Code::Unauthenticated);
            continue;
        };
        let cache = reply.unwrap().into_inner().cache_capabilities.unwrap();
        assert_eq!(cache.action_cache_update_capabilities.unwrap().update_enabled, enabled);
        assert_eq!(cache.digest_functions, [rex::digest_function::Value::Sha256 as i32, BLAKE3]);
        assert_eq!((cache.supported_compressors, cache.max_batch_total_size_bytes), (vec![ZSTD], 4 << 20));
    }
    let blob = || rex::BatchUpdateBlobsRequest {
        requests: vec![batch_update_blobs_request::Request {
            digest: Some(digest(b"x")),
            data: b"x".to_vec(),
            compressor: 0,
        }],
        ..Default::default()
    };
    let error = cas(&server).batch_update_blobs(with(&reader, blob())).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    cas(&server).batch_update_blobs(with(&writer, blob())).await.unwrap();
    let missing = rex::FindMissingBlobsRequest { blob_digests: vec![digest(b"x")], ..Default::default() };
    let reply = cas(&server).find_missing_blobs(with(&reader, missing)).await.unwrap().into_inner();
    assert!(reply.missing_blob_digests.is_empty());
    // What a call does is its path's, whatever the method.
    let path = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
    let bearer = format!("Authorization: Bearer {reader}");
    assert_eq!(server.send("GET", path, &[&bearer], b"").status, 403);
}

#[test]
fn connections_that_do_not_begin_are_closed() {
    let server = Running::with(|config| config.idle_timeout = Duration::from_secs(1));
    for begin in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = connect(server.addr);
        stream.write_all(begin.as_bytes()).unwrap();
        let mut rest = Vec::new();
        // An end or a reset, and no time-out of this side's.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{begin:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stand_still_are_ended() {
    let server = Running::with(|config| config.idle_timeout = Duration::from_secs(1));
    let data = noise(1, 200_000);
    let upload = format!("uploads/u/blobs/{}/{}", digest(&data).hash, data.len());
    let (sender, receiver) = tokio::sync::mpsc::channel(100);
    for message in messages(&upload, &data[..100_000], 0, false) {
        sender.send(message).await.unwrap();
    }
    let error = bytes(&server).write(Receiving(receiver)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert_eq!(committed(&server, &upload).await, (100_000, false));
}
