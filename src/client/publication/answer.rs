//! What a server answers to a publication.

use std::time::SystemTime;

use http::StatusCode;
use serde::Deserialize;

use super::{AnswerError, PublishError, Published};
use crate::client::{ClientResponse, retry};

/// What the server has published. With an error comes what it has published all the same, if it says so.
pub(super) async fn answer(mut response: ClientResponse) -> Result<Published, (PublishError, Option<Published>)> {
    let status = response.status;
    if status == StatusCode::OK {
        let text = response.body.short().await.map_err(|error| (error.into(), None))?;
        return serde_json::from_slice(&text).map_err(|error| (AnswerError::Json(error).into(), None));
    }
    let problem = response.problem_as::<Refused>().await.unwrap_or_default();
    let retry_after = retry::retry_after(&response.headers, SystemTime::now());
    // Another server's may look different.
    let published = problem.published.and_then(|published| serde_json::from_value(published).ok());
    Err((PublishError::Answered { status, detail: problem.detail, retry_after }, published))
}

/// A problem that ends a publication.
#[derive(Debug, Default, Deserialize)]
struct Refused {
    detail: Option<String>,
    published: Option<serde_json::Value>,
}
