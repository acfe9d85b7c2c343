//! Echo for WebSocket crates whose connection is a `Stream` and a `Sink`.

use std::error::Error;

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};

use crate::tasks::End;

/// Sends the messages back that `is_data` picks. Whatever is there already is answered first, and
/// all of that is flushed at once.
pub async fn echo<S, M, E>(mut connection: S, is_data: fn(&M) -> bool) -> End
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: Error + Send + Sync + 'static,
{
    while let Some(first) = connection.next().await {
        let mut message = first?;
        loop {
            if is_data(&message) {
                connection.feed(message).await?;
            }
            match connection.next().now_or_never() {
                Some(Some(next)) => message = next?,
                Some(None) => return Ok(()),
                None => break,
            }
        }
        connection.flush().await?;
    }
    Ok(())
}
