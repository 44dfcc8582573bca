//! What is wrong with a URL.

/// What is wrong with a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// A path alone.
    #[error("it names no server")]
    NoServer,
    /// A scheme and no host.
    #[error("it names no host")]
    NoHost,
    /// A single word.
    #[error("it is not a URL")]
    Word,
    /// A host without `https://`.
    #[error("a URL begins with https://")]
    NoHttps,
    /// `://` after nothing.
    #[error("it has no scheme")]
    NoScheme,
    /// `http://`.
    #[error("h3cast speaks HTTP/3, which is always https")]
    PlainHttp,
    /// Another scheme, given here.
    #[error("{0} is not a scheme of HTTP/3")]
    Scheme(String),
    /// A user name or password.
    #[error("user names and passwords are not sent")]
    Credentials,
    /// The port, given here, is not one.
    #[error("{0} is not a port (1 to 65535)")]
    Port(String),
    /// The host's name has a letter of another script.
    #[error("a host name must be ASCII")]
    NotAscii,
    /// A character that no host name has.
    #[error("`{}` cannot be in a host's name", .0.escape_debug())]
    Character(char),
    /// The host, given here, is none.
    #[error("{0} is neither a host name nor an IP address")]
    Host(String),
    /// What is in brackets, given here, is not an address.
    #[error("{0} is not an IPv6 address")]
    Ipv6(String),
    /// An IPv6 address without brackets.
    #[error("an IPv6 address must be in brackets")]
    NoBrackets,
    /// A bracket that is not closed.
    #[error("an IPv6 address ends with a bracket")]
    OpenBracket,
    /// Something other than a port follows an address in brackets.
    #[error("a colon comes between host and port")]
    NoColon,
    /// Host and port with several colons.
    #[error("there is more than one colon in its host and port")]
    Colons,
    /// Anything else.
    #[error("it cannot be read")]
    Unreadable,
}
