//! The app's routes, and what their answers are named.

use std::sync::Arc;

use axum::{
    response::Response,
    routing::{MethodRouter, get},
};
use http::HeaderValue;

use super::{App, info, metrics, overview, publish, session, status, view};
use crate::resource;

/// The app's routes. Every one is here, with its decision: see `tests/auth/ways.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    DefaultFeed,
    Feed,
    Info,
    Feeds,
    Metrics,
    Healthz,
    Readyz,
    ReadyzFeed,
    StatusPage,
    StatusData,
    StatusFile,
}

impl Route {
    pub(super) const ALL: [Self; 11] = [
        Self::DefaultFeed,
        Self::Feed,
        Self::Info,
        Self::Feeds,
        Self::Metrics,
        Self::Healthz,
        Self::Readyz,
        Self::ReadyzFeed,
        Self::StatusPage,
        Self::StatusData,
        Self::StatusFile,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::DefaultFeed => "/stream",
            Self::Feed => "/stream/{name}",
            Self::Info => "/info",
            Self::Feeds => "/feeds",
            Self::Metrics => "/metrics",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::ReadyzFeed => "/readyz/{name}",
            Self::StatusPage => "/status",
            Self::StatusData => "/status/data",
            Self::StatusFile => "/status/{*file}",
        }
    }

    pub(super) fn is_feed(&self) -> bool {
        matches!(self, Self::DefaultFeed | Self::Feed)
    }

    /// Whether it is there only when the app has a status page.
    pub(super) fn is_of_status_page(&self) -> bool {
        matches!(self, Self::StatusPage | Self::StatusData | Self::StatusFile)
    }

    pub(super) fn handler(self) -> MethodRouter<Arc<App>> {
        match self {
            Self::DefaultFeed | Self::Feed => {
                get(view::answer).post(publish::answer).put(publish::answer).connect(session::open)
            }
            Self::Info => get(info::answer),
            Self::Feeds => get(status::feeds),
            Self::Metrics => get(metrics::answer),
            Self::Healthz => get(async || "ok\n"),
            Self::Readyz => get(status::ready),
            Self::ReadyzFeed => get(status::feed_ready),
            Self::StatusPage => get(overview::page),
            Self::StatusData => get(overview::data),
            Self::StatusFile => get(overview::page_file),
        }
    }
}

/// The paths of the app's routes, for tests that ask each by every way.
#[doc(hidden)]
#[must_use]
pub fn paths() -> Vec<&'static str> {
    Route::ALL.iter().map(|route| route.path()).collect()
}

/// Names what an answer is of.
pub(super) fn named<B>(resource: &'static str) -> impl Fn(Response<B>) -> Response<B> + Clone {
    move |mut response| {
        response.headers_mut().insert(resource::HEADER, HeaderValue::from_static(resource));
        response
    }
}
