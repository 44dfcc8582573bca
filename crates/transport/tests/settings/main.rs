//! What a user of the library may set, each by what a client sees of it.

mod addresses;
mod certificates;
mod changes;
mod floods;
mod h2;
mod heads;
mod idle;
mod kit;
mod limits;
mod pinned;
mod places;
mod running;
mod sockets;
mod stalled;
mod tls;
