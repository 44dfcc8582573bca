//! What an answer is: a feed, or something else that the server has. A client that wants a feed
//! looks at it, so that it never takes a page for one.

use http::HeaderName;

/// The header that names the kind of resource. Answers of other servers don't have it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("h3cast-resource");
/// A feed, in whatever format.
pub(crate) const FEED: &str = "feed";
/// The viewer page and its files.
pub(crate) const PAGE: &str = "page";
/// What the server reports about itself and its feeds.
pub(crate) const STATUS: &str = "status";
