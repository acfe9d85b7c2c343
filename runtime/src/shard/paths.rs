//! Which route serves a path: exact ones, and those with parameters.
//!
//! Comes in: the routes of the builder, then the path of each request as it came. Goes out: the
//! route that serves it, and the values of its parameters. Escapes are not decoded: `/a%2Fb` is one
//! segment, and is not the path `/a/b`.

use std::fmt;
use std::sync::Arc;

use hioload_protocol::http::Response;
use matchit::{InsertError, Router};

use super::Shard;
use super::request::Request;

/// Answers a plain HTTP request.
pub(crate) type PlainHandler =
    Arc<dyn Fn(&mut Shard, &Request<'_>) -> Response + Send + Sync + 'static>;

/// Who answers which path.
#[derive(Clone, Default)]
pub(crate) struct Paths {
    /// WebSocket routes, by their index.
    websockets: Router<u16>,
    plain: Router<PlainHandler>,
}

/// The values of a route's parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Params<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().copied()
    }
}

impl Paths {
    /// # Errors
    /// A sentence: the path is none, or what it answers is answered already.
    pub(crate) fn add_websocket(&mut self, path: &str, route: u16) -> Result<(), String> {
        add(&mut self.websockets, path, route)
    }

    /// # Errors
    /// As of [`add_websocket`](Self::add_websocket).
    pub(crate) fn add_plain(&mut self, path: &str, handler: PlainHandler) -> Result<(), String> {
        add(&mut self.plain, path, handler)
    }

    pub(crate) fn websocket<'a>(&'a self, path: &'a str) -> Option<(u16, Params<'a>)> {
        find(&self.websockets, path).map(|(route, params)| (*route, params))
    }

    pub(super) fn plain<'a>(&'a self, path: &'a str) -> Option<(&'a PlainHandler, Params<'a>)> {
        find(&self.plain, path)
    }
}

fn add<T>(router: &mut Router<T>, path: &str, value: T) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("the route `{path}` does not begin with a slash: write `/{path}`"));
    }
    router.insert(path, value).map_err(|error| match error {
        InsertError::Conflict { with } if with == path => {
            format!("the route `{path}` is there twice: remove one of them")
        }
        InsertError::Conflict { with } => format!(
            "the routes `{path}` and `{with}` answer the same paths: remove or rename one of them"
        ),
        InsertError::InvalidParamSegment => {
            format!("the route `{path}` has two parameters between two slashes: one is allowed")
        }
        InsertError::InvalidCatchAll => {
            format!("the route `{path}` goes on behind `{{*...}}`, which takes all the rest")
        }
        _ => format!(
            "the route `{path}` has a parameter that is none: write `{{name}}`, or `{{{{` for a brace"
        ),
    })
}

fn find<'a, T>(router: &'a Router<T>, path: &'a str) -> Option<(&'a T, Params<'a>)> {
    let found = router.at(path).ok()?;
    Some((found.value, Params(found.params.iter().collect())))
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paths").field("websockets", &self.websockets).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/exact", Some((0, vec![])))]
    #[case("/chat/rust", Some((1, vec![("room", "rust")])))]
    #[case("/chat/lobby", Some((2, vec![])))]
    #[case("/chat/", None)]
    #[case("/chat/a/b", None)]
    #[case("/chat/a%2Fb", Some((1, vec![("room", "a%2Fb")])))]
    #[case("/files/a/b.txt", Some((3, vec![("rest", "a/b.txt")])))]
    #[case("/Exact", None)]
    #[case("/exact/", None)]
    fn the_most_exact_route_is_found(
        #[case] path: &str,
        #[case] expected: Option<(u16, Vec<(&str, &str)>)>,
    ) {
        let mut paths = Paths::default();
        for (index, route) in (0..).zip(["/exact", "/chat/{room}", "/chat/lobby", "/files/{*rest}"])
        {
            paths.add_websocket(route, index).unwrap();
        }
        let found = paths.websocket(path);
        let found = found.map(|(route, params)| (route, params.iter().collect::<Vec<_>>()));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("/a/{x}", "/a/{y}", "the routes `/a/{y}` and `/a/{x}` answer the same paths")]
    #[case("/a", "/a", "the route `/a` is there twice")]
    #[case("/", "ws", "the route `ws` does not begin with a slash: write `/ws`")]
    #[case("/", "/{a}-{b}", "the route `/{a}-{b}` has two parameters")]
    #[case("/", "/{*a}/b", "the route `/{*a}/b` goes on behind `{*...}`")]
    #[case("/", "/{", "the route `/{` has a parameter that is none")]
    fn what_cannot_be_told_apart_is_refused(
        #[case] first: &str,
        #[case] second: &str,
        #[case] beginning: &str,
    ) {
        let mut paths = Paths::default();
        paths.add_websocket(first, 0).unwrap();
        let sentence = paths.add_websocket(second, 1).unwrap_err();
        assert!(sentence.starts_with(beginning), "{sentence}");
    }
}
