//! Feeds of an old server that a new one need not have.

use std::fmt;

use crate::{app::estate::Lack, feed::Pattern};

/// So many feeds are named in an error.
const SHOWN: usize = 5;

/// `--take-over-drop`: a feed, or a pattern of feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::serve) enum Dropped {
    Feed(String),
    Feeds(Pattern),
}

impl std::str::FromStr for Dropped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("write the name of a feed, or a pattern as in chat.*".into()),
            pattern if pattern.contains('*') => pattern.parse().map(Self::Feeds).map_err(|error| format!("{error}")),
            name => Ok(Self::Feed(name.into())),
        }
    }
}

impl Dropped {
    pub(in crate::cli::serve) fn is(&self, name: &str) -> bool {
        match self {
            Self::Feed(feed) => feed == name,
            Self::Feeds(pattern) => pattern.matches(name),
        }
    }
}

/// Why the new server cannot continue what there is.
#[derive(Debug)]
pub(super) enum Lacking {
    /// Feeds of the old server.
    Feeds(Vec<(String, Lack)>),
    /// Feeds on disk would have chunks of two kinds of sources, in words.
    Mixed(String),
}

impl Lacking {
    pub(super) fn mixed(feeds: &[String]) -> Self {
        let shown = feeds.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = feeds.len().checked_sub(SHOWN).filter(|more| *more > 0);
        let more = more.map(|more| format!(", and {more} more")).unwrap_or_default();
        Self::Mixed(format!(
            "the stored chunks of these feeds are of another kind of source than the new server's: {shown}{more}. Give \
             each the same kind of source as before, or the new server's source another name"
        ))
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let feeds = match self {
            Self::Feeds(feeds) => feeds,
            Self::Mixed(why) => return f.write_str(why),
        };
        f.write_str("the new server would not have these feeds of the old one: ")?;
        for (at, (name, lack)) in feeds.iter().take(SHOWN).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}`{name}` ({lack})")?;
        }
        if let Some(more) = feeds.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            write!(f, ", and {more} more")?;
        }
        if feeds.iter().any(|(_, lack)| matches!(lack, Lack::Taken)) {
            return f
                .write_str(". Start the new server with the same sources as the old one, or give its own other names");
        }
        let shown: Vec<_> = feeds.iter().take(SHOWN).map(|(name, _)| name.as_str()).collect();
        write!(f, ". Start the new server with the same sources as the old one, or give them up with ")?;
        match feeds.len() > SHOWN {
            true => write!(f, "--take-over-drop FEED, which may be a pattern as in chat.*"),
            false => write!(f, "--take-over-drop {}", shown.join(",")),
        }
    }
}
