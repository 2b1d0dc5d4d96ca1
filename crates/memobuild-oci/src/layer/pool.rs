//! Work on several threads whose results are wanted in order: one queue in, one sink out, bounded memory between.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Where items come from, and where the sink learns, in the same order, from whom to take the results.
type Queue<I, O> = (Receiver<I>, SyncSender<Receiver<io::Result<O>>>);

/// Runs `work` on each item of a queue, on that many threads, each with a `state` of its own, and hands the results to
/// `sink` in the order of the items. The first error, of either, ends it; whoever fills the queue then sees it closed.
pub(super) fn in_order<I: Send, O: Send, S>(
    workers: usize,
    items: Receiver<I>,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, I) -> io::Result<O> + Sync,
    mut sink: impl FnMut(O) -> io::Result<()>,
) -> io::Result<()> {
    let (to_sink, results) = sync_channel(2 * workers);
    // Nothing at the end, so that the sink sees it too.
    let queue: Mutex<Option<Queue<I, O>>> = Mutex::new(Some((items, to_sink)));
    let (queue, state, work) = (&queue, &state, &work);
    // `results` is moved in, so that an error here drops it and thereby stops the workers.
    thread::scope(move |scope| {
        for _ in 0..workers {
            scope.spawn(move || {
                let mut state = state();
                while let Some((item, answer)) = next(queue) {
                    // Fails only where the sink has met an error and gone.
                    let _ = answer.send(work(&mut state, item));
                }
            });
        }
        while let Ok(result) = results.recv() {
            sink(result.recv().map_err(|_| io::Error::other("a worker thread panicked"))??)?;
        }
        Ok(())
    })
}

/// The next item, and where its result goes. `None` at the end, or when the sink has gone.
fn next<I, O>(queue: &Mutex<Option<Queue<I, O>>>) -> Option<(I, SyncSender<io::Result<O>>)> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = queue.as_ref().and_then(|(items, to_sink)| {
        let item = items.recv().ok()?;
        let (answer, result) = sync_channel(1);
        to_sink.send(result).ok()?;
        Some((item, answer))
    });
    if taken.is_none() {
        *queue = None;
    }
    taken
}
