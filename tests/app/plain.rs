//! Requests over plain HTTP, byte by byte: what they are answered, with the status.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{TestServer, soon};

pub(crate) async fn raw(server: &TestServer, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

pub(crate) async fn get(server: &TestServer, path: &str, fields: &str) -> (u16, String) {
    raw(server, &format!("GET {path} HTTP/1.1\r\n{fields}connection: close\r\n\r\n")).await
}
