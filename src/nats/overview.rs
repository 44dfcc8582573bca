//! What is logged once the feeds of a server have started: to which servers of NATS it is connected, and from where
//! its feeds are read.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::ServerAddr;
use tracing::info;

use super::{Address, connection::Link};

/// How many feeds of a system are named. There may be thousands.
const NAMED: usize = 20;

/// The systems with feeds that have started since this was told last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Overview(Arc<Mutex<BTreeMap<String, System>>>);

#[derive(Debug, Default)]
struct System {
    server: String,
    /// The names and patterns of feeds, by the stream that they are read from; without one they are live.
    feeds: BTreeMap<Option<String>, Vec<String>>,
}

impl Overview {
    /// Notes that feeds of that name or pattern have started.
    pub(super) fn note(&self, link: &Link, address: &Address, feed: &str, stream: Option<&str>) {
        // Without users and passwords.
        let host = |server: &String| server.parse::<ServerAddr>().ok().map(|at| format!("{}:{}", at.host(), at.port()));
        let at: Vec<_> = address.servers.iter().filter_map(host).collect();
        let about = link.now().client.server_info();
        let cluster = about.cluster.map(|cluster| format!(", cluster {cluster}")).unwrap_or_default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let system = all.entry(at.join(", ")).or_default();
        system.server = format!("server {}, version {}{cluster}", about.server_name, about.version);
        system.feeds.entry(stream.map(str::to_owned)).or_default().push(feed.to_owned());
    }

    /// Logs it, a line for each system.
    pub(super) fn tell(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (at, system) in all {
            info!("connected to NATS at {at} ({}): {}", system.server, system.read());
        }
    }
}

impl System {
    /// Which feeds are read from where.
    fn read(&self) -> String {
        let (mut text, mut left) = (String::new(), NAMED);
        let streams = self.feeds.iter().filter(|(stream, _)| stream.is_some());
        let live = self.feeds.iter().filter(|(stream, _)| stream.is_none());
        for (stream, feeds) in streams.chain(live) {
            let named = &feeds[..feeds.len().min(left)];
            if named.is_empty() {
                break;
            }
            left -= named.len();
            let separator = if text.is_empty() { "" } else { "; " };
            let names: Vec<_> = named.iter().map(|name| format!("`{name}`")).collect();
            let names = names.join(", ");
            // What is written to a text always is.
            let _ = match stream {
                Some(stream) => write!(text, "{separator}{names} from the stream `{stream}`"),
                None => write!(text, "{separator}{names} live"),
            };
        }
        match self.feeds.values().map(Vec::len).sum::<usize>() {
            all if all > NAMED => text + &format!("; and {} more", all - NAMED),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_feeds_are_read_from() {
        let mut system = System::default();
        for (feed, stream) in
            [("chat", Some("h3cast_chat")), ("now", None), ("web", Some("LOGS")), ("db", Some("LOGS"))]
        {
            system.feeds.entry(stream.map(str::to_owned)).or_default().push(feed.to_owned());
        }
        let read = "`web`, `db` from the stream `LOGS`; `chat` from the stream `h3cast_chat`; `now` live";
        assert_eq!(system.read(), read);
        let many = (0..1000).map(|number| format!("feed{number}"));
        system.feeds.entry(Some("LOGS".into())).or_default().extend(many);
        assert!(system.read().ends_with("`feed17` from the stream `LOGS`; and 984 more"), "{}", system.read());
    }
}
