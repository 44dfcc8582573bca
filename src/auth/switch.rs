//! Tokens that may be replaced while a server runs.

use std::sync::Arc;

use http::request::Parts;
use tokio::sync::watch;

use super::{Access, Authorize, Denied, Tokens};

/// [`Tokens`] that others may take the place of while a server runs, from other files, say. Clones are the same.
///
/// ```no_run
/// # async fn doc(app: h3cast::App) -> Result<h3cast::App, Box<dyn std::error::Error>> {
/// use h3cast::auth::{Switch, Tokens};
///
/// let switch = Switch::new(Tokens::new().file("tokens.txt").await?);
/// tokio::spawn(switch.clone().keep());
/// let app = app.authorize(switch.clone());
/// // Later:
/// let others = Tokens::new().after(&switch.now()).file("other-tokens.txt").await?;
/// switch.replace(others);
/// # Ok(app) }
/// ```
#[derive(Debug, Clone)]
pub struct Switch(Arc<watch::Sender<Arc<Tokens>>>);

impl Switch {
    /// Begins with these.
    #[must_use]
    pub fn new(tokens: Tokens) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(tokens.revocable()))))
    }

    /// Those that count now.
    #[must_use]
    pub fn now(&self) -> Arc<Tokens> {
        self.0.borrow().clone()
    }

    /// Has these count from now on. What runs under a static token ends, unless the token is among them and allows the
    /// same; so does what reads without a token, unless everyone may still read all that everyone could before. What
    /// runs under a JSON web token continues until that ends, as it does when keys change.
    pub fn replace(&self, tokens: Tokens) {
        let before = self.now();
        self.0.send_replace(Arc::new(tokens.succeed(&before)));
    }

    /// Reads files and what is served again when they change, as [`Tokens::keep`] does, for as long as it is polled.
    pub async fn keep(self) {
        let mut changes = self.0.subscribe();
        loop {
            let tokens = Tokens::clone(&changes.borrow_and_update());
            tokio::select! {
                () = tokens.keep() => {}
                // The sender is ours.
                _ = changes.changed() => {}
            }
        }
    }
}

impl Authorize for Switch {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        self.now().authorize(request).await
    }

    fn unready(&self) -> Option<String> {
        Authorize::unready(&*self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "the-first-of-the-tokens";
    const TWO: &str = "the-second-of-the-tokens";

    fn tokens(lines: &[&str], public: &[&str]) -> Tokens {
        let tokens = lines.iter().fold(Tokens::new(), |tokens, lines| tokens.lines(lines).unwrap());
        tokens.public(public.iter().map(|pattern| pattern.parse().unwrap()))
    }

    async fn asked(switch: &Switch, token: &str) -> Result<Access, Denied> {
        let request = http::Request::get("/stream");
        let request = match token {
            "" => request,
            token => request.header("authorization", format!("Bearer {token}")),
        };
        switch.authorize(&request.body(()).unwrap().into_parts().0).await
    }

    #[tokio::test]
    async fn streams_of_tokens_that_stay_continue() {
        let (read_one, read_two) = (format!("read=a {ONE}"), format!("read=a {TWO}"));
        let switch = Switch::new(tokens(&[&read_one, &read_two], &[]));
        let (one, two) = (asked(&switch, ONE).await.unwrap(), asked(&switch, TWO).await.unwrap());
        // In another file, behind others; the second one allows something else.
        switch.replace(tokens(&[&format!("read=a,b {TWO}"), &read_one], &[]));
        assert!(!one.has_ended() && two.has_ended());
        // What counts is what a token allows by the first file that has it.
        switch.replace(tokens(&[&read_one, &format!("read=b {ONE}")], &[]));
        assert!(!one.has_ended());
        assert!(asked(&switch, TWO).await.is_err());
        switch.replace(tokens(&[], &[]));
        assert!(one.has_ended() && asked(&switch, ONE).await.is_err());
    }

    #[tokio::test]
    async fn who_reads_without_a_token_may_read_until_that_is_withdrawn() {
        let switch = Switch::new(tokens(&[], &["a", "b"]));
        let anyone = asked(&switch, "").await.unwrap();
        switch.replace(tokens(&[], &["c", "b", "a"]));
        assert!(!anyone.has_ended());
        let later = asked(&switch, "").await.unwrap();
        switch.replace(tokens(&[], &["b", "a"]));
        assert!(anyone.has_ended() && later.has_ended());
        let last = asked(&switch, "").await.unwrap();
        assert!(!last.has_ended() && last.allows(super::super::Action::Read, "a"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn files_are_read_again_and_pipes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        std::fs::write(&file, format!("read=a {ONE}")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (at, line) = (pipe.clone(), format!("read=a {TWO}"));
        let writing = tokio::task::spawn_blocking(move || std::fs::write(at, line).unwrap());
        let switch = Switch::new(Tokens::new().file(&file).await.unwrap().file(&pipe).await.unwrap());
        writing.await.unwrap();
        let again = async || Tokens::new().after(&switch.now()).file(&file).await?.file(&pipe).await;
        let two = asked(&switch, TWO).await.unwrap();
        switch.replace(again().await.unwrap());
        assert!(!two.has_ended() && asked(&switch, TWO).await.is_ok());
        std::fs::write(&file, "read=a short").unwrap();
        let error = again().await.unwrap_err().to_string();
        assert!(error.contains("line 1") && asked(&switch, ONE).await.is_ok(), "{error}");
        // Nobody ever writes to it.
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(&pipe, &file).unwrap();
        let error = format!("{:?}", again().await.unwrap_err());
        assert!(error.contains("not a regular file"), "{error}");
    }
}
