//! Who may open a WebTransport session: the layers of the HTTP service decide, and the page's origin does.

mod layers;
mod origins;
mod peer;
mod routes;
