//! `GET /journey`: each step of each connection as it happens, a JSON object a line, for as long as somebody reads.

use std::time::Duration;

use model::event::Event;
use runtime::server::Reply;
use runtime::tap::{Lost, Tap};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Steps that may wait for a reader.
const ROOM: usize = 1024;
/// Pieces of the answer that may wait for the network.
const PIECES: usize = 16;
/// Steps in one piece at most.
const BATCH: usize = 64;
/// How often a line is sent although there is nothing to tell: a reader that has gone is found so.
const SIGN: Duration = Duration::from_secs(1);

/// Begins an answer that goes on. Runs in a local task set.
pub(super) fn journey(tap: &Tap<Event>) -> Reply {
    let Some((events, lost)) = tap.listen(ROOM) else {
        return Reply::unavailable("enough follow already; one of them must go first");
    };
    let (pieces, body) = mpsc::channel(PIECES);
    tokio::task::spawn_local(tell(events, lost, pieces));
    Reply::going_on("application/x-ndjson", body)
}

/// Ends with the reader, or with the proxy.
async fn tell(mut events: mpsc::Receiver<Event>, lost: Lost, pieces: mpsc::Sender<bytes::Bytes>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let mut text = String::new();
        match timeout(SIGN, events.recv_many(&mut batch, BATCH)).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => text.push('\n'),
        }
        for event in batch.drain(..) {
            text += &serde_json::to_string(&event).unwrap_or_default();
            text.push('\n');
        }
        let count = lost.take();
        if count > 0 {
            text += &format!("{{\"lost\":{count}}}\n");
        }
        if pieces.send(text.into()).await.is_err() {
            return;
        }
    }
}
