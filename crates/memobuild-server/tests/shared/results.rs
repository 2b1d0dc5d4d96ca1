//! Results of other tools' actions, put by one server's protocol and read by another's.

use bazel_remote_apis::build::bazel::remote::execution::v2::{self as rex, action_cache_client::ActionCacheClient};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status, transport::Channel};

use crate::{Bed, node::Node};

#[test]
fn results() {
    crate::run(&[("results", results_of_one_are_those_of_all)]);
}

fn digest(bytes: &[u8]) -> rex::Digest {
    let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    rex::Digest { hash, size_bytes: bytes.len() as i64 }
}

/// A result with one output of these bytes.
fn result(output: &[u8]) -> rex::ActionResult {
    let file = rex::OutputFile { path: "out".into(), digest: Some(digest(output)), ..Default::default() };
    rex::ActionResult { output_files: vec![file], exit_code: 3, ..Default::default() }
}

fn client(node: &Node) -> ActionCacheClient<Channel> {
    ActionCacheClient::new(Channel::from_shared(format!("http://{}", node.addr)).unwrap().connect_lazy())
}

async fn update(node: &Node, action: &rex::Digest, result: &rex::ActionResult) -> Result<rex::ActionResult, Status> {
    let request = rex::UpdateActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.clone()),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    Ok(client(node).update_action_result(request).await?.into_inner())
}

async fn get(node: &Node, action: &rex::Digest) -> Result<rex::ActionResult, Status> {
    let request = rex::GetActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.clone()),
        ..Default::default()
    };
    Ok(client(node).get_action_result(request).await?.into_inner())
}

fn results_of_one_are_those_of_all(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outputs: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth"];
    let results = outputs.map(result);
    let action = digest(b"an action");
    let path = format!("/main/ac/{}", action.hash);
    let http = |node: &Node| rex::ActionResult::decode(&*node.get(&path).body).unwrap();
    let store = |node: &Node, output: &[u8]| {
        assert_eq!(node.send("PUT", &format!("/cas/{}", digest(output).hash), &[], output).status, 201);
    };

    // By HTTP on one, read by both protocols on the other; only when its output is there, on whichever.
    let put = |node: &Node, result: &rex::ActionResult| node.send("PUT", &path, &[], &result.encode_to_vec()).status;
    assert_eq!((put(&a, &results[0]), b.get(&path).status), (409, 404));
    assert_eq!(runtime.block_on(get(&b, &action)).unwrap_err().code(), Code::NotFound);
    store(&b, outputs[0]);
    assert_eq!(put(&a, &results[0]), 200);
    assert_eq!((http(&b), runtime.block_on(get(&b, &action)).unwrap()), (results[0].clone(), results[0].clone()));
    // Replaced there by HTTP, and there by gRPC.
    store(&a, outputs[1]);
    assert_eq!(put(&b, &results[1]), 200);
    assert_eq!(http(&a), results[1]);
    store(&a, outputs[2]);
    runtime.block_on(update(&b, &action, &results[2])).unwrap();
    assert_eq!((http(&a), runtime.block_on(get(&a, &action)).unwrap()), (results[2].clone(), results[2].clone()));

    // By gRPC on one, read on the other, replaced there.
    let other = digest(b"another action");
    let refused = runtime.block_on(update(&a, &other, &results[3])).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    store(&b, outputs[3]);
    runtime.block_on(update(&a, &other, &results[3])).unwrap();
    assert_eq!(runtime.block_on(get(&b, &other)).unwrap(), results[3]);
    runtime.block_on(update(&b, &other, &results[0])).unwrap();
    assert_eq!(runtime.block_on(get(&a, &other)).unwrap(), results[0]);

    // Anything at all may be put by HTTP, also what is too large for a record; and taken away.
    let path = format!("/ac/{}", digest(b"a third").hash);
    for value in [crate::client::noise(1, 100_000), b"small".to_vec()] {
        assert_eq!(a.send("PUT", &path, &[], &value).status, 200);
        assert!(b.get(&path).body == value);
    }
    assert_eq!(b.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!((a.get(&path).status, b.get(&path).status), (404, 404));
    // A result is a record each, and what was replaced is none.
    assert_eq!(bed.sql("SELECT count(*) FROM records"), "3");
    bed.counted();
}
