//! Tells those who watch this server of what any server took, where several share a database.
//!
//! While somebody watches, the database is looked at every second, and soon after this server took something itself: what
//! is told comes from these looks alone, so that it is told once and in order. When nobody watches nothing is asked.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{Change, Live, PostgresBuilds};

/// How often the database is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What this server takes within this time is looked for together.
const SOON: Duration = Duration::from_millis(50);

/// Changes told at once, and how long those who watch have to take them. Less than the queue holds.
const AT_ONCE: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);

/// Until the server ends.
pub(crate) async fn follow(builds: Arc<PostgresBuilds>, live: Arc<Live>) {
    let mut closed = live.closed();
    tokio::select! {
        () = look_and_tell(&builds, &live) => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}

async fn look_and_tell(builds: &Arc<PostgresBuilds>, live: &Live) {
    loop {
        live.stirred().await;
        let mut seen = Arc::default();
        let mut failing = false;
        while live.watchers() > 0 {
            let (asked, before) = (builds.clone(), Arc::clone(&seen));
            let looked = spawn_blocking(move || asked.news(&before)).await;
            let failed = match looked {
                Ok(Ok((changes, now))) => {
                    tell(live, &changes).await;
                    seen = Arc::new(now);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Once, not every second. What is missed now the next look that succeeds finds.
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                tracing::warn!("those who watch builds are told nothing for now: {error}");
            }
            failing = failed.is_some();
            sleep(SOON).await;
            let _ = timeout(EVERY, live.stirred()).await;
        }
    }
}

async fn tell(live: &Live, changes: &[Change]) {
    for some in changes.chunks(AT_ONCE) {
        some.iter().for_each(|change| live.tell(change));
        if changes.len() > AT_ONCE {
            sleep(PAUSE).await;
        }
    }
}
