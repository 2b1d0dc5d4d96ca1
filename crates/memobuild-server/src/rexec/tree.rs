//! GetTree: a directory and all below it, in pages.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bazel_remote_apis::build::bazel::remote::execution::v2 as rex;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, codegen::tokio_stream::Stream};

use super::{
    digest::{self, Function},
    status,
};
use crate::{
    reply::{ApiError, blocking},
    results::whole,
    storage::Storage,
};

/// Directories in a page, unless the client asks for fewer; bytes of one, so that clients can take it.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// Bytes of one directory.
const DIRECTORY: u64 = 32 << 20;

type Page = Result<rex::GetTreeResponse, Status>;

/// Pages as they are made, one or two ahead of the client at most.
pub(super) struct Pages(mpsc::Receiver<Page>);

impl Stream for Pages {
    type Item = Page;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Page>> {
        self.0.poll_recv(cx)
    }
}

/// All pages come in one stream, so that no token is needed to go on.
///
/// # Errors
/// `not_found` if the root is not there. Directories below it that are missing are left out, as the API has it.
pub(super) async fn pages(storage: Arc<dyn Storage>, request: rex::GetTreeRequest) -> Result<Pages, ApiError> {
    if !request.page_token.is_empty() {
        return Err(ApiError::bad("invalid_value", "not a page token that was given here"));
    }
    let function = Function::of(request.digest_function)?;
    let root = request.root_digest.ok_or_else(|| ApiError::bad("invalid_digest", "the root has no digest"))?;
    let most = usize::try_from(request.page_size).ok().filter(|n| *n > 0).map_or(PAGE, |n| n.min(PAGE));
    let first = {
        let (storage, root) = (storage.clone(), root.clone());
        blocking(move || directory(&*storage, function, &root)).await?
    };
    let first = first.ok_or_else(|| ApiError::not_found("directory"))?;
    let (sender, receiver) = mpsc::channel(1);
    let mut walk =
        Walk { storage, function, most, seen: HashSet::from([root.hash]), open: VecDeque::new(), next: Some(first) };
    // A client that takes its time holds this task, and no thread: each page is made when the one before it is taken.
    tokio::spawn(async move {
        while walk.next.is_some() {
            let page = match blocking(move || walk.page().map(|page| (page, walk))).await {
                Ok((page, rest)) => {
                    walk = rest;
                    Ok(page)
                }
                Err(error) => {
                    let _ = sender.send(Err(status(error))).await;
                    return;
                }
            };
            // The client is gone.
            if sender.send(page).await.is_err() {
                return;
            }
        }
    });
    Ok(Pages(receiver))
}

/// How far it came.
struct Walk {
    storage: Arc<dyn Storage>,
    function: Function,
    /// Directories in a page.
    most: usize,
    seen: HashSet<String>,
    open: VecDeque<rex::Digest>,
    next: Option<rex::Directory>,
}

impl Walk {
    fn page(&mut self) -> Result<rex::GetTreeResponse, ApiError> {
        let mut page = rex::GetTreeResponse::default();
        let mut bytes = 0;
        while page.directories.len() < self.most && bytes < PAGE_BYTES {
            let Some(found) = self.next.take() else { break };
            self.open.extend(found.directories.iter().filter_map(|node| node.digest.clone()));
            bytes += found.encoded_len();
            page.directories.push(found);
            while self.next.is_none() {
                let Some(digest) = self.open.pop_front() else { break };
                if self.seen.insert(digest.hash.clone()) {
                    self.next = directory(&*self.storage, self.function, &digest)?;
                }
            }
        }
        Ok(page)
    }
}

fn directory(
    storage: &dyn Storage,
    function: Function,
    digest: &rex::Digest,
) -> Result<Option<rex::Directory>, ApiError> {
    let (id, size) = digest::blob(function, digest)?;
    if size > DIRECTORY {
        return Err(ApiError::too_large(DIRECTORY));
    }
    let Some(bytes) = whole(storage, id, size)? else { return Ok(None) };
    rex::Directory::decode(bytes.as_slice())
        .map(Some)
        .map_err(|_| ApiError::bad("invalid_value", format!("{id} is not a directory")))
}
