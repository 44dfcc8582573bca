//! Responses that an application cuts.

use tokio_util::sync::CancellationToken;

/// Cuts a response, also while its client takes nothing of it and its body is not asked for more: put a clone into the
/// response's extensions. It ends alone: its stream is reset, over HTTP/2 with CANCEL
/// ([RFC 9113 §7](https://www.rfc-editor.org/rfc/rfc9113#section-7)), over HTTP/3 with H3_EXCESSIVE_LOAD
/// ([RFC 9114 §8.1](https://www.rfc-editor.org/rfc/rfc9114#section-8.1)). What had not left is dropped. A connection
/// of HTTP/2 whose client takes nothing at all, and goes on so for a second, is closed as well: the system holds what
/// was written for it. A response that is complete, and whose rest waits for its client's credit over HTTP/2, is ended
/// by [`Limits::send_timeout`](crate::Limits::send_timeout) as any other. A response over HTTP/1.1 has no stream:
/// close its [connection](super::ConnectionHandle::close).
///
/// ```
/// use h3cast_transport::connection::Cut;
///
/// let cut = Cut::default();
/// let mut response = http::Response::new("much");
/// response.extensions_mut().insert(cut.clone());
/// // When it has taken too long:
/// cut.cut();
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cut(CancellationToken);

impl Cut {
    /// Cuts the response. One that has left is not touched.
    pub fn cut(&self) {
        self.0.cancel();
    }

    /// Cancelled when it is cut.
    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Completes when it is cut. Cancel-safe.
    pub(crate) fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.clone().cancelled_owned()
    }
}

/// Completes when one that is there is cut. Cancel-safe.
pub(crate) async fn cut(cut: Option<Cut>) {
    match cut {
        Some(cut) => cut.is_cut().await,
        None => std::future::pending().await,
    }
}
