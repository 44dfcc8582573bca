//! With what a NATS system is entered: each system may have its own.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_nats::{ConnectOptions, ServerAddr};

use super::NatsError;

/// With what a NATS system is entered, mostly files. They are read when a connection is made; those of TLS also when it
/// is made again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Access {
    /// A user's JWT and key, as `nsc` writes them.
    pub credentials: Option<PathBuf>,
    /// A token, in the first line.
    pub token: Option<PathBuf>,
    /// Certificates of those who may vouch for the servers, in PEM; TLS is asked for then.
    pub ca: Option<PathBuf>,
    /// The client's certificate and those between it and its CA, in PEM. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`, in PEM.
    pub key: Option<PathBuf>,
    /// What the subjects begin with to which answers come, in place of `_INBOX`. A user who may subscribe to no others
    /// cannot hear the answers to other users. Tokens with dots between, without wildcards.
    pub inbox: Option<String>,
}

/// What the subjects of answers begin with, if nothing else is said.
const INBOX: &str = "_INBOX";

/// Whether the subjects of answers can begin with it.
pub(crate) fn is_inbox(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
    text.split('.').all(|token| !token.is_empty() && token.chars().all(plain))
}

impl Access {
    /// Its own files, and where there are none those of `others`: never two logins at once, nor half a pair. A
    /// certificate is no login: the common one is shown to a system with a user of its own, too.
    pub(super) fn or(&self, others: &Self, has_user: bool) -> Self {
        let named = has_user || self.credentials.is_some() || self.token.is_some();
        let login = if named { self } else { others };
        let pair = if self.certificate.is_some() { self } else { others };
        Self {
            credentials: login.credentials.clone(),
            token: login.token.clone(),
            ca: self.ca.as_ref().or(others.ca.as_ref()).cloned(),
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            inbox: self.inbox.as_ref().or(others.inbox.as_ref()).cloned(),
        }
    }

    /// That the files of its login can be read, also where an address has a user of its own and nothing else needs them:
    /// one that is given and missing is a mistake.
    pub(super) async fn check(&self) -> Result<(), NatsError> {
        for (what, path) in [("credentials", &self.credentials), ("token", &self.token)] {
            let Some(path) = path else { continue };
            let found = tokio::fs::metadata(path).await.map_err(unreadable(what, path))?;
            // Opening a FIFO would wait for whoever writes it.
            if found.is_file() {
                tokio::fs::File::open(path).await.map_err(unreadable(what, path))?;
            }
        }
        Ok(())
    }

    /// What the subjects of answers begin with.
    pub(super) fn inbox(&self) -> &str {
        self.inbox.as_deref().unwrap_or(INBOX)
    }

    /// The client with these files, and with the user or the token of an address.
    pub(super) async fn apply(
        &self,
        options: ConnectOptions,
        addresses: &[ServerAddr],
    ) -> Result<ConnectOptions, NatsError> {
        let mut options = options.custom_inbox_prefix(self.inbox());
        // The client leaves them in the address.
        if let Some(user) = addresses.iter().find_map(user) {
            options = match user {
                User::Password(user, password) => options.user_and_password(user, password),
                User::Token(token) => options.token(token),
            };
        }
        if let Some(path) = &self.token {
            options = options.token(first_line(path).await?);
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await.map_err(unreadable("credentials", path))?;
        }
        // The client reads these when it connects, and its error would name no file.
        for (what, path) in
            [("CA certificates", &self.ca), ("client certificate", &self.certificate), ("client key", &self.key)]
        {
            let Some(path) = path else { continue };
            let found = tokio::fs::metadata(path).await.map_err(unreadable(what, path))?;
            // Opening a FIFO would wait for whoever writes it.
            if found.is_file() {
                tokio::fs::File::open(path).await.map_err(unreadable(what, path))?;
            }
        }
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = self.certificate.as_ref().zip(self.key.as_ref()) {
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        Ok(options)
    }
}

async fn first_line(path: &Path) -> Result<String, NatsError> {
    let text = tokio::fs::read_to_string(path).await.map_err(unreadable("token", path))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(token) => Ok(token.to_owned()),
        None => Err(unreadable("token", path)(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty"))),
    }
}

fn unreadable(what: &'static str, path: &Path) -> impl Fn(io::Error) -> NatsError + use<> {
    let path = path.to_path_buf();
    move |source| NatsError::Credentials { what, path: path.clone(), source }
}

/// What stands before the hosts of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum User {
    Password(String, String),
    /// A name without a password, as NATS' own clients read it.
    Token(String),
}

pub(super) fn user(address: &ServerAddr) -> Option<User> {
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = plain(address.username()?);
    Some(match address.password() {
        Some(password) => User::Password(user, plain(password)),
        None => User::Token(user),
    })
}

/// The address without them: the client logs addresses as they are, and has the user from its options.
pub(super) fn without_user(address: &ServerAddr) -> Result<ServerAddr, NatsError> {
    let mut url = address.clone().into_inner();
    // They fail where there is no host, and so no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    ServerAddr::from_url(url).map_err(NatsError::Server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_has_its_own_user_or_the_common_one() {
        let file = |name: &str| Some(PathBuf::from(name));
        let common = Access {
            credentials: file("creds"),
            ca: file("ca"),
            certificate: file("cert"),
            key: file("key"),
            inbox: Some("_INBOX_edge".into()),
            ..Access::default()
        };
        assert_eq!(Access::default().or(&common, false), common);
        // Its secrets are for the other system alone.
        assert_eq!(Access::default().or(&common, true), Access { credentials: None, ..common.clone() });
        let own =
            Access { token: file("token"), ca: file("own"), inbox: Some("_INBOX_own".into()), ..Access::default() };
        let both = own.or(&common, false);
        assert_eq!((both.inbox(), &both.key), ("_INBOX_own", &file("key")));
        assert_eq!((both.credentials, both.token, both.ca), (None, file("token"), file("own")));
        assert_eq!(Access::default().inbox(), "_INBOX");
        assert!(is_inbox("_INBOX_edge") && is_inbox("inbox.edge"));
        assert!(["", "a..b", "a.", "a b", "a.*", ">"].iter().all(|text| !is_inbox(text)));
    }

    #[test]
    fn users_and_tokens_in_addresses() {
        let of = |text: &str| user(&text.parse().unwrap());
        assert_eq!(of("nats://ann:p%40ss@h:1"), Some(User::Password("ann".into(), "p@ss".into())));
        assert_eq!(of("nats://s3cret%2F@h:1"), Some(User::Token("s3cret/".into())));
        assert_eq!(of("nats://h:1"), None);
        for text in ["tls://ann:p%40ss@h:1", "tls://s3cret%2F@h:1", "tls://:s3cret@h:1", "tls://h:1"] {
            assert_eq!(without_user(&text.parse().unwrap()).unwrap().as_url_str(), "tls://h:1");
        }
    }
}
