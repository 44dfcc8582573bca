# An image of the program: docker build -t h3cast . See docs/operations.md, "Docker".
FROM rust:1-slim-trixie AS build
WORKDIR /src
COPY . .
# Caches, kept between builds: compiled code and downloaded crates.
RUN --mount=type=cache,target=/src/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --locked --release --bin h3cast \
    && install -D target/release/h3cast /image/usr/local/bin/h3cast \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 700 -o 65534 -g 65534 /image/var/lib/h3cast

# With a shell, because feeds may run commands (exec:).
FROM debian:trixie-slim
LABEL org.opencontainers.image.title="h3cast" \
      org.opencontainers.image.description="Live streams to any browser over HTTP/3" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image/ /
# Not on loopback, so that other containers and machines can reach it. Plain HTTP is only for the health check inside
# the container. The socket for `h3cast reload` is stored next to the certificates.
ENV H3CAST_LISTEN=0.0.0.0:4433 \
    H3CAST_HTTP=127.0.0.1:8080 \
    H3CAST_CERTS=/var/lib/h3cast/certs \
    XDG_STATE_HOME=/var/lib/h3cast
VOLUME /var/lib/h3cast
WORKDIR /var/lib/h3cast
# The user nobody, by number, so that Kubernetes can verify that it is not root.
USER 65534:65534
# HTTPS, and HTTP/3 with WebTransport.
EXPOSE 4433/tcp 4433/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["h3cast", "health"]
ENTRYPOINT ["h3cast"]
CMD ["serve"]
