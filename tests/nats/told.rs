//! What a server says when it starts, or does not, and when it stops.

use std::path::Path;

use async_nats::jetstream::stream::Config;

use crate::{cluster::Cluster, program, within};

/// Starts a server that does not start; what it says of that.
pub(crate) async fn refused(dir: &Path, args: &[&str]) -> String {
    let all = [&["serve", "--listen", "localhost:0", "--http", "off"], args].concat();
    let output = program::output(dir, &all).await;
    let told = program::text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn it_says_what_it_is_connected_to_and_a_stop_is_no_loss() {
    let (folder, conf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = conf.path().join("nats.conf");
    std::fs::write(&path, "authorization: { user: app, password: secret }\n").unwrap();
    let cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let at = format!("app:secret@{}", cluster.addresses());
    let logs = Config { name: "LOGS".into(), subjects: vec!["logs.>".into()], ..Config::default() };
    let address = format!("nats://{}", cluster.addresses());
    let client = within("a connection", async {
        loop {
            let options = async_nats::ConnectOptions::with_user_and_password("app".into(), "secret".into());
            if let Ok(client) = options.connect(address.as_str()).await {
                return client;
            }
            // Nobody tells when it listens.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let context = async_nats::jetstream::new(client);
    context.create_stream(logs).await.unwrap();
    for subject in ["logs.a", "logs.b", "logs.c"] {
        context.publish(subject, "text".into()).await.unwrap().await.unwrap();
    }
    let (all, live) = (format!("logs=nats://{at}/logs.*"), format!("now=nats://{at}/now?live"));
    let engine = format!("--engine=nats://{at}");
    let args = ["chat=publish", &all, &live, &engine, "--ensure-stream", "--log=info"];
    let serving = program::Serving::start(folder.path(), 0, &args).await;
    serving.program.signal("TERM");
    let (_, log, code) = serving.program.end().await;
    assert_eq!(code, Some(0), "{log}");
    let connected: Vec<_> = log.lines().filter(|line| line.contains("connected to NATS")).collect();
    let [line] = connected[..] else { panic!("not one line: {log}") };
    let (server, read) = line.split_once("connected to NATS at ").unwrap().1.split_once("): ").unwrap();
    assert!(server.starts_with(&format!("{} (server n0, version 2.", cluster.addresses())), "{line}");
    assert_eq!(read, "`logs` from the stream `LOGS`; `chat` from the stream `h3cast_chat`; `now` live", "{line}");
    assert!(!log.contains("secret") && !log.contains("WARN") && !log.contains("is lost"), "{log}");
}
