//! The app decides which pages may open sessions, also those of the server's own handlers.

use h3cast::{App, origin::Origins, source::demo, webtransport::SessionRequest};
use http::{HeaderMap, HeaderValue, header};

use crate::common::{TestServer, soon};

async fn accept(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    session.closed().await;
}

fn one(origin: &str) -> Origins {
    [origin.parse().unwrap()].into_iter().collect()
}

#[tokio::test]
async fn the_app_decides_whatever_the_order() {
    for before in [false, true] {
        let server = TestServer::start(|builder, identity| {
            let app = App::new([demo::feed("default", 1, Default::default())], identity)
                .allow_origins(one("https://app.example"));
            let builder = builder.webtransport("/own", accept);
            match before {
                true => app.install(builder.origins(one("https://builder.example"))),
                false => app.install(builder).origins(one("https://builder.example")),
            }
        })
        .await;
        let connection = server.connect().await;
        for path in ["/own", "/stream"] {
            let uri = server.uri(path);
            for (origin, may) in [
                (None, true),
                (Some("https://app.example"), true),
                (Some("http://localhost:1"), true),
                (Some("https://builder.example"), false),
                (Some("https://evil.example"), false),
            ] {
                let origin_header = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
                let asked = connection.webtransport(&uri, HeaderMap::from_iter(origin_header), &[]);
                let answer = soon("an answer", asked).await.map(drop).map_err(|error| error.to_string());
                let expected = answer.as_ref().map_or_else(|error| !may && error.contains("403"), |()| may);
                assert!(expected, "{path} {origin:?}, set before: {before}: {answer:?}");
            }
        }
    }
}
