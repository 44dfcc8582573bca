//! Which handler answers for which path, and what the wildcards of a path stand for.

use std::{collections::HashMap, sync::Arc};

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::request::Handler;
use crate::path;

/// The handlers of a server's sessions.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    /// From a path to an index in `handlers`.
    routes: matchit::Router<usize>,
    by_pattern: HashMap<String, usize>,
    handlers: Vec<Arc<dyn Handler>>,
    fallback: Option<Arc<dyn Handler>>,
}

/// What the wildcards of a path stand for, decoded, in the order of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Handlers {
    /// # Panics
    ///
    /// When `pattern` is invalid, or cannot be told apart from an earlier one.
    #[track_caller]
    pub(crate) fn insert(&mut self, pattern: &str, handler: Arc<dyn Handler>) {
        if let Some(&index) = self.by_pattern.get(pattern) {
            self.handlers[index] = handler;
            return;
        }
        assert!(pattern.starts_with('/'), "invalid path {pattern:?} of WebTransport sessions: it must start with `/`");
        let index = self.handlers.len();
        if let Err(error) = self.routes.insert(pattern, index) {
            panic!("invalid path {pattern:?} of WebTransport sessions: {error}");
        }
        self.by_pattern.insert(pattern.to_owned(), index);
        self.handlers.push(handler);
    }

    pub(crate) fn set_fallback(&mut self, handler: Arc<dyn Handler>) {
        self.fallback = Some(handler);
    }

    /// The handler for a request's path, or the status to refuse it with.
    pub(crate) fn find(&self, path: &str) -> Result<(Arc<dyn Handler>, Params), StatusCode> {
        let path = path::normal(path);
        let Ok(found) = self.routes.at(&path) else {
            let fallback = self.fallback.clone().ok_or(StatusCode::NOT_FOUND)?;
            return Ok((fallback, Params::default()));
        };
        let decoded = found.params.iter().map(|(name, value)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        });
        let params = decoded.collect::<Option<_>>().map(Params).ok_or(StatusCode::BAD_REQUEST)?;
        Ok((self.handlers[*found.value].clone(), params))
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers")
            .field("paths", &self.by_pattern.keys())
            .field("fallback", &self.fallback.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webtransport::SessionRequest;

    fn handlers(patterns: &[&str]) -> Handlers {
        let mut handlers = Handlers::default();
        for pattern in patterns {
            handlers.insert(pattern, Arc::new(async |_: SessionRequest| {}));
        }
        handlers
    }

    /// The pattern that a path finds, and what its wildcards stand for.
    fn found(handlers: &Handlers, path: &str) -> Result<(String, String), u16> {
        let (handler, params) = handlers.find(path).map_err(|status| status.as_u16())?;
        let same = |index: &usize| Arc::ptr_eq(&handlers.handlers[*index], &handler);
        let pattern = handlers.by_pattern.iter().find(|(_, index)| same(index)).map(|(pattern, _)| pattern.clone());
        let params: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok((pattern.unwrap_or_default(), params.join(" ")))
    }

    #[test]
    fn paths_find_their_handler() {
        let handlers =
            handlers(&["/", "/echo", "/room/{name}", "/room/{name}/log", "/room/lobby", "/files/{*rest}", "/{{x}}"]);
        for (path, pattern, params) in [
            ("/", "/", ""),
            ("/echo", "/echo", ""),
            ("/%65cho", "/echo", ""),
            ("/room/7", "/room/{name}", "name=7"),
            ("/room/lobby", "/room/lobby", ""),
            ("/room/7/log", "/room/{name}/log", "name=7"),
            ("/room/a%2Fb%20%C3%BC", "/room/{name}", "name=a/b ü"),
            ("/room/100%25", "/room/{name}", "name=100%"),
            ("/files/a/b%20c", "/files/{*rest}", "rest=a/b c"),
            ("/{x}", "/{{x}}", ""),
        ] {
            assert_eq!(found(&handlers, path), Ok((pattern.to_owned(), params.to_owned())), "{path}");
        }
        for path in ["/Echo", "/echo/", "/room", "/room/", "/room/7/", "/files/", "/files", "//", "*", ""] {
            assert_eq!(found(&handlers, path), Err(404), "{path}");
        }
        assert_eq!(found(&handlers, "/room/%FF"), Err(400));
    }

    #[test]
    fn every_other_path_finds_the_fallback() {
        let mut handlers = handlers(&["/room/{name}"]);
        handlers.set_fallback(Arc::new(async |_: SessionRequest| {}));
        assert_eq!(found(&handlers, "/room/7").unwrap().1, "name=7");
        assert_eq!(found(&handlers, "/other"), Ok(Default::default()));
    }

    #[test]
    fn the_last_handler_of_a_path_counts() {
        let mut handlers = handlers(&["/a/{x}"]);
        let last: Arc<dyn Handler> = Arc::new(async |_: SessionRequest| {});
        handlers.insert("/a/{x}", last.clone());
        assert!(Arc::ptr_eq(&handlers.find("/a/1").unwrap().0, &last));
    }

    #[test]
    fn invalid_and_ambiguous_paths_are_refused() {
        for wrong in ["", "echo", "{name}", "/{", "/{}", "/{*rest}/more", "/{*}", "/a/{y}", "/a/{*all}"] {
            let refused = std::panic::catch_unwind(|| handlers(&["/a/{x}", wrong])).unwrap_err();
            let reason = refused.downcast_ref::<String>().unwrap();
            assert!(reason.starts_with(&format!("invalid path {wrong:?} of WebTransport sessions: ")), "{reason}");
        }
    }
}
