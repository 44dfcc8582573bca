//! A resource with ranges, to a file: what was cut goes on where it stopped, in a later run too
//! (RFC 9110 §14).

use std::io;

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::{Getting, output::PartFile, plain::length, resume};
use crate::{
    cli::{Failure, outage::Outage},
    client::{
        ClientError, ClientResponse, Connection,
        retry::{self, Retry},
        viewer::{SILENCE, ViewError},
    },
    units::many,
};

/// How a download went.
pub(super) enum Done {
    /// All of it has come.
    Complete,
    /// The resource is none of which a part can be asked for: a live feed.
    NoRanges(Box<Connection>),
}

/// What a part is a part of: `FILE.part.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sidecar {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    length: u64,
}

impl Sidecar {
    /// That of a whole resource, if parts of it can be asked for.
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).map(String::from);
        let ranges =
            text(header::ACCEPT_RANGES).is_some_and(|units| units.split(',').any(|unit| unit.trim() == "bytes"));
        let etag = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
        let last_modified = text(header::LAST_MODIFIED);
        let length = length(headers).ok()??;
        (ranges && (etag.is_some() || last_modified.is_some())).then(|| Self {
            url: uri.to_string(),
            etag,
            last_modified,
            length,
        })
    }

    /// What was recorded of a part, if it is a part of this resource.
    fn recorded(recorded: serde_json::Value, uri: &Uri) -> Option<Self> {
        let sidecar: Self = serde_json::from_value(recorded).ok()?;
        (sidecar.url == uri.to_string() && sidecar.validator().is_some()).then_some(sidecar)
    }

    /// What a part is asked for by, so that it comes only of the same resource.
    fn validator(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.etag.as_ref().or(self.last_modified.as_ref())?).ok()
    }

    /// Whether nothing in that answer says that it is of another version. A server may leave out
    /// what it was asked by.
    fn fits(&self, headers: &HeaderMap) -> bool {
        let same = |name, mine: &Option<String>| match (headers.get(name), mine) {
            (Some(theirs), Some(mine)) => theirs.as_bytes() == mine.as_bytes(),
            _ => true,
        };
        same(header::ETAG, &self.etag) && same(header::LAST_MODIFIED, &self.last_modified)
    }
}

/// Records what a response is of, so that a later run can ask for the rest of it.
pub(super) fn record(part: &mut PartFile, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
    let Some(sidecar) = Sidecar::of(uri, headers) else { return Ok(()) };
    part.expect(&sidecar).map_err(|error| {
        Failure::running(anyhow::Error::new(error).context(format!("cannot write {}", part.path().display())))
    })
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The whole resource comes.
    Whole(Sidecar),
    /// What was asked for comes.
    Rest,
    /// There is nothing to come any more.
    Complete,
    /// The part is none of this resource as it is now.
    Changed,
    /// Parts cannot be asked for.
    NoRanges,
    /// An error.
    Error,
}

/// What an answer means to whoever has `have` bytes already.
fn judge(have: Option<(&Sidecar, u64)>, uri: &Uri, status: StatusCode, headers: &HeaderMap) -> Verdict {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok()).and_then(content_range);
    match (status, have) {
        (StatusCode::OK, _) => Sidecar::of(uri, headers).map_or(Verdict::NoRanges, Verdict::Whole),
        (StatusCode::PARTIAL_CONTENT, Some((sidecar, have))) => match range {
            Some((Some(first), total)) if first == have && total.is_none_or(|total| total == sidecar.length) => {
                if sidecar.fits(headers) {
                    Verdict::Rest
                } else {
                    Verdict::Changed
                }
            }
            _ => Verdict::Changed,
        },
        (StatusCode::RANGE_NOT_SATISFIABLE, Some((sidecar, have))) => match range {
            Some((None, Some(total))) if total == have && total == sidecar.length && sidecar.fits(headers) => {
                Verdict::Complete
            }
            _ => Verdict::Changed,
        },
        _ => Verdict::Error,
    }
}

/// The first byte and the length of the whole: `bytes 5-9/10`, `bytes 5-9/*`, `bytes */10`.
fn content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    let first = match range {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    Some((first, total))
}

/// Why a download stopped.
enum Interruption {
    /// It may be tried again.
    Remote(ViewError),
    /// This side failed.
    Local(Failure),
}

impl<E: Into<ViewError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Remote(error.into())
    }
}

fn local(error: io::Error, part: &PartFile) -> Interruption {
    let context = format!("cannot write {}", part.path().display());
    Interruption::Local(Failure::running(anyhow::Error::new(error).context(context)))
}

/// Downloads the resource to the part's end, through losses.
pub(super) async fn run(getting: &Getting, uri: &Uri, part: &mut PartFile) -> Result<Done, Failure> {
    let (mut retry, mut outage) = (Retry::new(getting.retry_for), Outage::default());
    let mut sidecar = Sidecar::recorded(part.recorded(), uri);
    if part.len() > 0 && sidecar.is_none() {
        getting.progress.complain(&format!("{} does not belong to {uri}: starting over", part.path().display()));
    }
    loop {
        let error = match attempt(getting, uri, part, &mut sidecar, (&mut retry, &mut outage)).await {
            Ok(done) => return Ok(done),
            Err(Interruption::Local(failure)) => return Err(failure),
            Err(Interruption::Remote(error)) if error.is_final() => return Err(resume::failure(error)),
            Err(Interruption::Remote(error)) => error,
        };
        let Some(pause) = error.pause(&mut retry) else {
            let after = getting.retry_for.unwrap_or_default();
            return Err(resume::failure(ViewError::GaveUp { after, last: Box::new(error) }));
        };
        let words = resume::lost_in_words(&error, pause, None);
        match outage.prints(&error.to_string(), Instant::now()) {
            true => getting.progress.complain(&words),
            false => getting.log.say(format_args!("* {words}")),
        }
        sleep(pause).await;
    }
}

async fn open(getting: &Getting, uri: &Uri, again: bool) -> Result<Connection, ClientError> {
    match again {
        true => Connection::open_again(uri, &getting.trust).await,
        false => Connection::open(uri, &getting.trust).await,
    }
}

/// One connection.
async fn attempt(
    getting: &Getting,
    uri: &Uri,
    part: &mut PartFile,
    sidecar: &mut Option<Sidecar>,
    (retry, outage): (&mut Retry, &mut Outage),
) -> Result<Done, Interruption> {
    let silent = || Interruption::from(ViewError::Silent);
    let opening = async {
        let connection =
            timeout(SILENCE, open(getting, uri, retry.is_eager(Instant::now()))).await.map_err(|_| silent())??;
        getting.log.say(format_args!("* connected to {} over HTTP/3", connection.remote_address()));
        let asked = ask(getting, &connection, uri, sidecar.as_ref(), part.len());
        let response = timeout(SILENCE, asked).await.map_err(|_| silent())??;
        Ok::<_, Interruption>((connection, response))
    };
    let (connection, mut response) = retry::by(retry.deadline(), uri, opening).await?;
    length(&response.headers).map_err(Interruption::Local)?;
    let have = sidecar.as_ref().filter(|_| part.len() > 0).map(|sidecar| (sidecar, part.len()));
    let answer = match judge(have, uri, response.status, &response.headers) {
        Verdict::Changed => {
            restart(getting, part, sidecar, "it has changed")?;
            response = timeout(SILENCE, ask(getting, &connection, uri, None, 0)).await.map_err(|_| silent())??;
            judge(None, uri, response.status, &response.headers)
        }
        answer => answer,
    };
    let length = match answer {
        Verdict::Complete => {
            connection.close().await;
            return Ok(Done::Complete);
        }
        Verdict::NoRanges if part.len() > 0 && sidecar.is_some() => {
            let text = format!(
                "the server does not say any more what the file is: {} is left as it is (delete it to start over)",
                part.path().display()
            );
            return Err(Interruption::Local(Failure::running(anyhow::anyhow!(text))));
        }
        Verdict::NoRanges => return Ok(Done::NoRanges(Box::new(connection))),
        Verdict::Rest => sidecar.as_ref().map_or(0, |sidecar| sidecar.length),
        Verdict::Whole(new) => {
            let why = match sidecar {
                Some(old) if *old == new => "the server sends no part of it",
                _ => "it has changed",
            };
            restart(getting, part, sidecar, why)?;
            // Before the first byte: a part of which nobody knows what it is of is of no use.
            part.record(&new).map_err(|error| local(error, part))?;
            let length = new.length;
            *sidecar = Some(new);
            length
        }
        Verdict::Changed | Verdict::Error => {
            let detail = response.problem().await;
            return Err(ViewError::answered(response.status, &response.headers, detail).into());
        }
    };
    if part.len() > 0 {
        getting.log.say(format_args!("* resuming after {}", many(part.len(), "byte")));
    }
    if outage.ends() {
        getting.progress.complain(&format!("reconnected: continuing after {}", many(part.len(), "byte")));
    }
    getting.progress.begin(part.len(), Some(length));
    while let Some(bytes) = timeout(SILENCE, response.body.next()).await.map_err(|_| silent())?? {
        retry.works();
        if part.len() + bytes.len() as u64 > length {
            let text = format!("the server sent more than the {} that it announced", many(length, "byte"));
            return Err(Interruption::Local(Failure::running(anyhow::anyhow!(text))));
        }
        part.write(&bytes).map_err(|error| local(error, part))?;
        getting.progress.advance(bytes.len());
    }
    if part.len() < length {
        return Err(ClientError::Length { length, received: part.len() }.into());
    }
    getting.log.say(format_args!("* clean end after {}", many(length, "byte")));
    connection.close().await;
    Ok(Done::Complete)
}

/// Forgets what there is, if there is something.
fn restart(
    getting: &Getting,
    part: &mut PartFile,
    sidecar: &mut Option<Sidecar>,
    why: &str,
) -> Result<(), Interruption> {
    if part.len() > 0 && sidecar.take().is_some() {
        getting.progress.complain(&format!("{why}: starting again"));
    }
    part.restart().map_err(|error| local(error, part))
}

async fn ask(
    getting: &Getting,
    connection: &Connection,
    uri: &Uri,
    sidecar: Option<&Sidecar>,
    have: u64,
) -> Result<ClientResponse, ViewError> {
    let mut request = Request::new(());
    if let Some(token) = &getting.token {
        request.headers_mut().insert(header::AUTHORIZATION, token.header().await?);
    }
    *request.uri_mut() = uri.clone();
    if let Some(validator) = sidecar.filter(|_| have > 0).and_then(Sidecar::validator) {
        request.headers_mut().insert(header::IF_RANGE, validator);
        let range = HeaderValue::from_str(&format!("bytes={have}-")).expect("digits are visible ASCII");
        request.headers_mut().insert(header::RANGE, range);
    }
    getting.log.say(format_args!("> GET {}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)));
    let response = connection.request(request).await?;
    getting.log.say(format_args!("< HTTP/3 {}", response.status));
    getting.log.headers(&response.headers);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn ranges() -> Vec<(header::HeaderName, &'static str)> {
        vec![(header::ACCEPT_RANGES, "bytes"), (header::CONTENT_LENGTH, "10"), (header::LAST_MODIFIED, "then")]
    }

    #[test]
    fn which_resources_have_ranges() {
        let uri = "https://host/x".parse().unwrap();
        let of = |pairs: &[_]| judge(None, &uri, StatusCode::OK, &headers(pairs));
        let Verdict::Whole(sidecar) = of(&ranges()) else { panic!() };
        assert_eq!((sidecar.length, sidecar.validator().unwrap()), (10, HeaderValue::from_static("then")));
        let Verdict::Whole(sidecar) = of(&[ranges(), vec![(header::ETAG, "\"a\"")]].concat()) else { panic!() };
        assert_eq!(sidecar.validator().unwrap(), "\"a\"");
        let Verdict::Whole(sidecar) = of(&[ranges(), vec![(header::ETAG, "W/\"a\"")]].concat()) else { panic!() };
        assert_eq!(sidecar.validator().unwrap(), "then");
        for without in 0..3 {
            let mut pairs = ranges();
            pairs.remove(without);
            assert_eq!(of(&pairs), Verdict::NoRanges);
        }
        let mut none = ranges();
        none[0].1 = "none";
        assert_eq!(of(&none), Verdict::NoRanges);
        assert_eq!(judge(None, &uri, StatusCode::NOT_FOUND, &headers(&ranges())), Verdict::Error);
        assert_eq!(judge(None, &uri, StatusCode::PARTIAL_CONTENT, &headers(&ranges())), Verdict::Error);
    }

    #[test]
    fn what_comes_of_a_part() {
        let uri = "https://host/x".parse().unwrap();
        let Some(sidecar) = Sidecar::of(&uri, &headers(&ranges())) else { panic!() };
        let judge = |status: u16, range: &str, modified: &str| {
            let headers = headers(&[(header::CONTENT_RANGE, range), (header::LAST_MODIFIED, modified)]);
            judge(Some((&sidecar, 4)), &uri, StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert_eq!(judge(206, "bytes 4-9/10", "then"), Verdict::Rest);
        assert_eq!(judge(206, "bytes 4-9/*", "then"), Verdict::Rest);
        for (range, modified) in [
            ("bytes 4-9/10", "now"),
            ("bytes 5-9/10", "then"),
            ("bytes 4-9/11", "then"),
            ("x", "then"),
            ("bytes 4", "then"),
        ] {
            assert_eq!(judge(206, range, modified), Verdict::Changed, "{range} {modified}");
        }
        assert_eq!(judge(200, "", "then"), Verdict::NoRanges);
        for (range, modified) in [("bytes */10", "then"), ("bytes */4", "then"), ("bytes */*", "then"), ("", "then")] {
            assert_eq!(judge(416, range, modified), Verdict::Changed, "{range} {modified}");
        }
        let all = |modified: &str| {
            let headers = headers(&[(header::CONTENT_RANGE, "bytes */10"), (header::LAST_MODIFIED, modified)]);
            super::judge(Some((&sidecar, 10)), &uri, StatusCode::RANGE_NOT_SATISFIABLE, &headers)
        };
        assert_eq!((all("then"), all("now")), (Verdict::Complete, Verdict::Changed));
        assert_eq!(judge(503, "", "then"), Verdict::Error);
    }

    #[test]
    fn a_sidecar_is_read_as_it_was_written() {
        let uri = "https://host/x".parse().unwrap();
        let sidecar = Sidecar::of(&uri, &headers(&ranges())).unwrap();
        let recorded = serde_json::to_value(&sidecar).unwrap();
        assert_eq!(Sidecar::recorded(recorded.clone(), &uri), Some(sidecar));
        assert_eq!(Sidecar::recorded(recorded, &"https://host/y".parse().unwrap()), None);
        for text in ["{}", "{\"url\":\"https://host/x\",\"length\":10}"] {
            assert_eq!(Sidecar::recorded(text.parse().unwrap(), &uri), None, "{text}");
        }
    }
}
