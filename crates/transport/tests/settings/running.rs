use h3cast_transport::server::{Advertise, ServerBuilder, ServerId};
use tokio::net::TcpStream;

use crate::kit::{Serving, ask, builder, loopback, soon, status};

#[tokio::test]
async fn serves_until_a_future_is_done() {
    let (builder, _certs) = builder();
    let server = builder.listen(loopback()).plain_http_listener(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let server = server.build().await.unwrap();
    let address = server.addresses().plain[0];
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run_until(stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(status(&soon("an answer", ask(&mut stream, "")).await.unwrap()), 200);
    stop.send(()).unwrap();
    soon("the end", running).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn serves_until_it_is_dropped() {
    let (builder, _certs) = builder();
    let server = builder.listen(loopback()).build().await.unwrap();
    let address = server.addresses().tcp[0];
    let running = tokio::spawn(server.serve());
    TcpStream::connect(address).await.unwrap();
    running.abort();
    assert!(soon("its end", running).await.unwrap_err().is_cancelled());
    assert!(TcpStream::connect(address).await.is_err());
}

/// As programs have it that were written when these took an `Option`.
#[tokio::test]
async fn setters_take_values_or_options() {
    let advertise: Advertise = "cast.example:443".parse().unwrap();
    let server: ServerId = "0a1b".parse().unwrap();
    let set: [fn(ServerBuilder, Advertise, ServerId) -> ServerBuilder; 3] = [
        |builder, advertise, server| builder.advertise(advertise).server_id(server),
        |builder, advertise, server| builder.advertise(Some(advertise)).server_id(Some(server)),
        |builder, _, _| builder.advertise(None).server_id(None),
    ];
    for (set, told) in set.into_iter().zip(["cast.example:443", "cast.example:443", "h3=\":"]) {
        let serving = Serving::start(|builder| set(builder, advertise.clone(), server.clone())).await;
        let answer = soon("an answer", ask(&mut serving.h1().await, "")).await.unwrap();
        assert!(answer.contains(told), "{answer}");
    }
}
