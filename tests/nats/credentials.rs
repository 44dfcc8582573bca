//! TLS and credentials to NATS.

use crate::{
    cluster::Cluster,
    edge::{Edge, chunk_texts, publish, read},
    serving::Serving,
    told::refused,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn with_a_password() {
    let cluster = Cluster::start_with(1, &["--user".into(), "ann".into(), "--pass".into(), "p@ss/word".into()]);
    let port = cluster.nodes[0].port;
    let engine = format!("--engine=nats://ann:p%40ss%2Fword@127.0.0.1:{port}");
    let args = ["chat=publish", engine.as_str(), "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "safe\n").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 1).await), ["safe\n"]);
}

/// Neither when it connects, nor when it tries to connect again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn no_log_has_the_user_of_an_address() {
    for (login, at, secrets) in [
        (&["--user", "ann", "--pass", "p@ss/word"][..], "ann:p%40ss%2Fword", &["p@ss", "p%40ss"][..]),
        (&["--auth", "s3cret/token"], "s3cret%2Ftoken", &["s3cret"]),
    ] {
        let login: Vec<_> = login.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster::start_with(1, &login);
        let engine = format!("--engine=nats://{at}@127.0.0.1:{}", cluster.nodes[0].port);
        let args = ["chat=publish", engine.as_str(), "--ensure-stream", "--log=trace"];
        let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
        let log = || std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
        assert!(log().contains("attempting connection"), "the client's own lines are there");
        cluster.nodes[0].kill();
        crate::within("it cannot connect again", async {
            while !log().contains("callback-selected server connection failed") {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        let log = log();
        let shown: Vec<_> = log.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret))).collect();
        assert!(shown.is_empty(), "{shown:#?}");
    }
}

/// A JWT as NATS has them: signed by an nkey.
fn jwt(issuer: &nkeys::KeyPair, subject: &str, nats: &serde_json::Value) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let header = serde_json::json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = serde_json::json!({
        "jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": "test", "nats": nats,
    });
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn with_tls_and_credentials() {
    use serde_json::json;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    h3cast::Identity::self_signed(dir.path(), &[], Default::default()).unwrap();

    // An operator, its system's account, an account with JetStream, and a user of that.
    let [operator, system, account, user] = [
        nkeys::KeyPair::new_operator(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_user(),
    ];
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let plain_limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let account_of = |key: &nkeys::KeyPair, limits| {
        jwt(&operator, &key.public_key(), &json!({ "type": "account", "version": 2, "limits": limits }))
    };
    let config = format!(
        "operator: {}\nsystem_account: {sys}\nresolver: MEMORY\nresolver_preload: {{ {sys}: {}, {}: {} }}\n",
        jwt(&operator, &operator.public_key(), &json!({ "type": "operator", "version": 2 })),
        account_of(&system, plain_limits),
        account.public_key(),
        account_of(&account, limits),
        sys = system.public_key(),
    );
    std::fs::write(path("nats.conf"), config).unwrap();
    let user_jwt = jwt(
        &account,
        &user.public_key(),
        &json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(path("user.creds"), credentials).unwrap();

    let tls = ["-c", "nats.conf", "--tls", "--tlscert", "cert.pem", "--tlskey", "key.pem"];
    let tls: Vec<_> = tls.iter().map(|arg| if arg.contains('.') { path(arg) } else { (*arg).to_owned() }).collect();
    let cluster = Cluster::start_with(1, &tls);
    let engine = format!("--engine=tls://localhost:{}", cluster.nodes[0].port);
    let (ca, creds) = (format!("--nats-ca={}", path("cert.pem")), format!("--nats-creds={}", path("user.creds")));
    let args = ["chat=publish", engine.as_str(), "--ensure-stream", &ca, &creds];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "safe\n").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 1).await), ["safe\n"]);

    for (left_out, words) in [(&creds, "authorization"), (&ca, "certificate")] {
        let args: Vec<_> = args.iter().copied().filter(|arg| arg != left_out).collect();
        let told = refused(dir.path(), &args).await.to_lowercase();
        assert!(told.contains("cannot connect to nats") && told.contains(words), "{told}");
    }
}
