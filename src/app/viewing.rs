//! How feeds are viewed: over what, and in which format.

use http::Version;

use crate::{
    counts::Protocol,
    feed::{Delivered, Deliveries},
    format::Format,
};

/// How a viewer has its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Raw,
    Sse,
    Frames,
    Datagrams,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Raw, Self::Sse, Self::Frames, Self::Datagrams];

    /// Its name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Sse => "sse",
            Self::Frames => "frames",
            Self::Datagrams => "datagrams",
        }
    }
}

impl From<Format> for Shape {
    fn from(format: Format) -> Self {
        match format {
            Format::Raw => Self::Raw,
            Format::Sse => Self::Sse,
            Format::Frames => Self::Frames,
        }
    }
}

/// What viewers are given, by their transport and by how they have it.
#[derive(Debug, Clone, Default)]
pub(super) struct Viewing([[Deliveries; Shape::ALL.len()]; Protocol::ALL.len()]);

impl Viewing {
    /// Where those count that have a response of that version.
    pub(super) fn over(&self, version: Version, shape: impl Into<Shape>) -> &Deliveries {
        let protocol = match version {
            Version::HTTP_3 => Protocol::Http3,
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
        self.by(protocol, shape.into())
    }

    /// Where those count that have a session.
    pub(super) fn in_session(&self, shape: impl Into<Shape>) -> &Deliveries {
        self.by(Protocol::WebTransport, shape.into())
    }

    fn by(&self, protocol: Protocol, shape: Shape) -> &Deliveries {
        &self.0[protocol as usize][shape as usize]
    }

    /// What has been counted by now: all that there can be, so that no series begins in the middle.
    pub(super) fn snapshot(&self) -> Vec<(Protocol, Shape, Delivered)> {
        let all = Protocol::ALL.into_iter().flat_map(|protocol| Shape::ALL.map(|shape| (protocol, shape)));
        // A response brings no datagrams.
        let there = all.filter(|(protocol, shape)| *shape != Shape::Datagrams || *protocol == Protocol::WebTransport);
        there.map(|(protocol, shape)| (protocol, shape, self.by(protocol, shape).snapshot())).collect()
    }
}
