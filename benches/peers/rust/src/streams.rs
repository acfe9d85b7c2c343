//! Echo for WebSocket crates whose connection is a `Stream` and a `Sink`.

use std::error::Error;

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};

use crate::tasks::End;

/// Messages that are read before the first of them is answered.
const BATCH_MAX: usize = 256;

/// Sends the messages back that `is_data` picks.
///
/// All that are there already are read first, then answered and flushed at once: some crates flush
/// with every read that follows an answer.
pub async fn echo<S, M, E>(mut connection: S, is_data: fn(&M) -> bool) -> End
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: Error + Send + Sync + 'static,
{
    let mut batch = Vec::new();
    while let Some(first) = connection.next().await {
        batch.push(first?);
        let mut is_over = false;
        while batch.len() < BATCH_MAX && !is_over {
            match connection.next().now_or_never() {
                Some(Some(next)) => batch.push(next?),
                Some(None) => is_over = true,
                None => break,
            }
        }
        for message in batch.drain(..).filter(is_data) {
            connection.feed(message).await?;
        }
        connection.flush().await?;
        if is_over {
            break;
        }
    }
    Ok(())
}
