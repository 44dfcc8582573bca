//! The PROXY protocol, versions 1 and 2: a header that a proxy sends before anything else on a connection, with
//! the address of the client that it forwards
//! ([specification](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt)).
//!
//! ```
//! use h3cast_proto::proxy::{ProxyHeader, ProxyRead, Source};
//!
//! let sent = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
//! let ProxyRead::Complete(header) = ProxyHeader::read(sent).unwrap() else { panic!() };
//! assert_eq!(header.source, Source::Address("192.0.2.7:56324".parse().unwrap()));
//! // Not one byte of what follows may be taken for the header.
//! assert_eq!(ProxyHeader::read(&sent[..20]), Ok(ProxyRead::More(2)));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, in bytes (§2.1).
pub const MAX_V1: usize = 107;

/// The longest header of version 2 that is accepted, in bytes. Proxies are told to stay below 536 (§2.2); a client's
/// certificate takes more.
pub const MAX_V2: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
/// The part of version 2 that every header has.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Where the client is.
    pub source: Source,
    /// Whether the client speaks TLS with the proxy, where that was stated (`PP2_TYPE_SSL`).
    pub tls: Option<bool>,
}

/// Where the client of a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The connection is the proxy's own, as for a health check (`LOCAL`).
    Proxy,
    /// The proxy does not know an address, or it is none of IP (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`).
    Unknown,
    /// There.
    Address(SocketAddr),
}

/// What has come of a header so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyRead {
    /// At least this many bytes are missing. All of them are part of the header.
    More(usize),
    /// That was all of it.
    Complete(ProxyHeader),
}

/// What a proxy sent is not a header, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadProxyHeader(&'static str);

const fn bad<T>(why: &'static str) -> Result<T, BadProxyHeader> {
    Err(BadProxyHeader(why))
}

impl ProxyHeader {
    /// Reads the header that `bytes` begin, and of which they have no byte too many.
    ///
    /// # Errors
    ///
    /// As soon as no byte that follows could make a header of it.
    pub fn read(bytes: &[u8]) -> Result<ProxyRead, BadProxyHeader> {
        let begins = |as_: &[u8]| bytes.iter().zip(as_).all(|(one, other)| one == other);
        if begins(SIGNATURE) && !bytes.is_empty() {
            return version_2(bytes);
        }
        match begins(V1) {
            true => version_1(bytes),
            false => bad("it begins with neither `PROXY ` nor the signature of version 2"),
        }
    }
}

fn version_1(bytes: &[u8]) -> Result<ProxyRead, BadProxyHeader> {
    if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
        return match bytes[..at].strip_suffix(b"\r") {
            Some(line) if at + 1 == bytes.len() => line_1(line),
            _ => bad("its line does not end with CR LF"),
        };
    }
    if bytes.len() >= MAX_V1 {
        return bad("its line has more than 107 bytes");
    }
    let least = match bytes.last() {
        _ if bytes.len() < SHORTEST => SHORTEST - bytes.len(),
        Some(b'\r') => 1,
        _ => 2,
    };
    Ok(ProxyRead::More(least.min(MAX_V1 - bytes.len())))
}

fn line_1(line: &[u8]) -> Result<ProxyRead, BadProxyHeader> {
    let header = |source| Ok(ProxyRead::Complete(ProxyHeader { source, tls: None }));
    let Ok(line) = std::str::from_utf8(line) else { return bad("its line is not ASCII") };
    let mut words = line.split(' ').skip(1);
    let is_v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => return header(Source::Unknown),
        _ => return bad("its protocol is not TCP4, TCP6 or UNKNOWN"),
    };
    let ip = |word: Option<&str>| match is_v4 {
        true => word.and_then(|word| word.parse::<Ipv4Addr>().ok()).map(IpAddr::V4),
        false => word.and_then(|word| word.parse::<Ipv6Addr>().ok()).map(IpAddr::V6),
    };
    let (source, destination) = (ip(words.next()), ip(words.next()));
    let (port, to) = (words.next().and_then(port_of), words.next().and_then(port_of));
    match (source, destination, port, to, words.next()) {
        (Some(ip), Some(_), Some(port), Some(_), None) => header(Source::Address(SocketAddr::new(ip, port))),
        _ => bad("it is not two addresses of its protocol and two ports, with single spaces"),
    }
}

/// A port as it is written without a sign and without a zero too many.
pub(crate) fn port_of(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version_2(bytes: &[u8]) -> Result<ProxyRead, BadProxyHeader> {
    if bytes.get(12).is_some_and(|byte| byte >> 4 != 2) {
        return bad("its signature is that of version 2, its version is not");
    }
    if bytes.get(12).is_some_and(|byte| byte & 0xf > 1) {
        return bad("its command is neither LOCAL nor PROXY");
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(ProxyRead::More(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MAX_V2 {
        return bad("it has more than 4096 bytes");
    }
    match length.checked_sub(rest.len()) {
        Some(0) => {}
        Some(missing) => return Ok(ProxyRead::More(missing)),
        None => return bad("bytes follow it"),
    }
    let header = |source, tls| Ok(ProxyRead::Complete(ProxyHeader { source, tls }));
    if fixed[12] & 0xf == 0 {
        // Its addresses are to be discarded, whatever they are (§2.2).
        return header(Source::Proxy, None);
    }
    let (family, protocol) = (fixed[13] >> 4, fixed[13] & 0xf);
    if family > 3 || protocol > 2 {
        return bad("its address family or protocol is not one of version 2");
    }
    if family == 0 || protocol == 0 {
        return header(Source::Unknown, None);
    }
    if protocol == 2 {
        return bad("it is for datagrams, but this is a stream");
    }
    let size = [0, 12, 36, 216][usize::from(family)];
    let Some((addresses, tlvs)) = rest.split_at_checked(size) else {
        return bad("it is too short for its addresses");
    };
    let tls = check_tlvs(tlvs, bytes)?;
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let source = match family {
        1 => {
            let ip: [u8; 4] = std::array::from_fn(|at| addresses[at]);
            Source::Address(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)))
        }
        2 => {
            let ip: [u8; 16] = std::array::from_fn(|at| addresses[at]);
            Source::Address(SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)))
        }
        _ => Source::Unknown,
    };
    header(source, tls)
}

const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
/// The bit of `PP2_TYPE_SSL` for a client that connected over TLS.
const CLIENT_SSL: u8 = 0x01;

/// Checks what follows the addresses (§2.2.1 onwards); whether the client uses TLS, if that is in it.
fn check_tlvs(mut tlvs: &[u8], header: &[u8]) -> Result<Option<bool>, BadProxyHeader> {
    const CUT: &str = "its TLVs do not end where it does";
    let mut tls = None;
    while let Some((kind, value, rest)) = next_tlv(tlvs) {
        match kind {
            CRC32C => {
                let Ok(sum) = <[u8; 4]>::try_from(value) else { return bad("its checksum does not have 4 bytes") };
                // Counted with zeros in its own place.
                let at = header.len() - rest.len() - value.len();
                let counted = header.iter().enumerate().map(|(i, byte)| if i.wrapping_sub(at) < 4 { 0 } else { *byte });
                if crc32c(counted) != u32::from_be_bytes(sum) {
                    return bad("its checksum is wrong");
                }
            }
            SSL => {
                let Some((fixed, mut inner)) = value.split_at_checked(5) else {
                    return bad("its TLV about TLS is too short");
                };
                while let Some((_, _, rest)) = next_tlv(inner) {
                    inner = rest;
                }
                if !inner.is_empty() {
                    return bad(CUT);
                }
                tls = Some(fixed[0] & CLIENT_SSL != 0);
            }
            _ => {}
        }
        tlvs = rest;
    }
    if tlvs.is_empty() { Ok(tls) } else { bad(CUT) }
}

/// A TLV's type, its value, and what follows; `None` at the end, or if what is left is incomplete.
fn next_tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(3)?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
    Some((head[0], value, rest))
}

/// CRC-32C (RFC 3720 §B.4).
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complete(bytes: &[u8]) -> Option<(Source, Option<bool>)> {
        match ProxyHeader::read(bytes) {
            Ok(ProxyRead::Complete(header)) => Some((header.source, header.tls)),
            _ => None,
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, rest].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], u16::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

    fn at(address: &str) -> Source {
        Source::Address(address.parse().unwrap())
    }

    /// Each kind of header, and what it says.
    fn valid() -> Vec<(Vec<u8>, Source, Option<bool>)> {
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[31], v6[33]) = (0x20, 0x01, 7, 1, 80);
        let ssl = |flags| [V4.to_vec(), tlv(SSL, &[&[flags, 0, 0, 0, 0], tlv(0x21, b"TLSv1.3").as_slice()].concat())];
        let mut summed = v2(1, 0x11, &[V4.to_vec(), tlv(CRC32C, &[0; 4]), tlv(0x04, &[0; 9])].concat());
        let sum = crc32c(summed.iter().copied());
        summed[FIXED + 12 + 3..][..4].copy_from_slice(&sum.to_be_bytes());
        let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), MAX_V1);
        vec![
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), at("192.0.2.7:56324"), None),
            (b"PROXY TCP6 2001::7 ::1 0 65535\r\n".to_vec(), at("[2001::7]:0"), None),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Unknown, None),
            (longest.to_vec(), Source::Unknown, None),
            (v2(0, 0x00, b""), Source::Proxy, None),
            (v2(0, 0x11, &V4), Source::Proxy, None),
            (v2(0, 0xff, b"whatever"), Source::Proxy, None),
            (v2(1, 0x00, b"whatever"), Source::Unknown, None),
            (v2(1, 0x10, b"whatever"), Source::Unknown, None),
            (v2(1, 0x11, &V4), at("192.0.2.7:56324"), None),
            (v2(1, 0x21, &v6), at("[2001::7]:80"), None),
            (v2(1, 0x31, &[b'/'; 216]), Source::Unknown, None),
            (v2(1, 0x11, &[V4.to_vec(), tlv(0x04, &[0; 4000])].concat()), at("192.0.2.7:56324"), None),
            (v2(1, 0x11, &ssl(1).concat()), at("192.0.2.7:56324"), Some(true)),
            (v2(1, 0x11, &ssl(0).concat()), at("192.0.2.7:56324"), Some(false)),
            (summed, at("192.0.2.7:56324"), None),
        ]
    }

    #[test]
    fn what_headers_say() {
        for (bytes, source, tls) in valid() {
            assert_eq!(complete(&bytes), Some((source, tls)), "{}", bytes.escape_ascii());
        }
        // RFC 3720 §B.4
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    /// Cut at every byte, a header asks for more, and never for a byte that is not its own.
    #[test]
    fn headers_that_come_in_pieces() {
        for (bytes, ..) in valid() {
            for cut in 0..bytes.len() {
                let Ok(ProxyRead::More(more)) = ProxyHeader::read(&bytes[..cut]) else {
                    panic!("{} cut at {cut}", bytes.escape_ascii());
                };
                assert!((1..=bytes.len() - cut).contains(&more), "{} cut at {cut}: {more}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header() {
        let wrong_sum = v2(1, 0x11, &[V4.to_vec(), tlv(CRC32C, &[1; 4])].concat());
        let too_long = v2(1, 0x11, &[V4.to_vec(), tlv(0x04, &[0; 5000])].concat());
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7  198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +6324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 56324 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP6 ::1%lo ::1 56324 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            b"PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY UNKNOWN\r\nG".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; MAX_V1 - 14]].concat(),
            [SIGNATURE.as_slice(), &[0x11]].concat(),
            [SIGNATURE.as_slice(), &[0x22]].concat(),
            v2(1, 0x41, &V4),
            v2(1, 0x13, &V4),
            v2(1, 0x12, &V4),
            v2(1, 0x11, &V4[..11]),
            v2(1, 0x21, &V4),
            v2(1, 0x31, &[0; 215]),
            v2(1, 0x11, &[V4.to_vec(), vec![4, 0]].concat()),
            v2(1, 0x11, &[V4.to_vec(), vec![4, 0, 9, 0]].concat()),
            v2(1, 0x11, &[V4.to_vec(), tlv(SSL, &[1, 0, 0, 0])].concat()),
            v2(1, 0x11, &[V4.to_vec(), tlv(SSL, &[1, 0, 0, 0, 0, 0x21, 0, 1])].concat()),
            v2(1, 0x11, &[V4.to_vec(), tlv(CRC32C, &[0; 3])].concat()),
            [v2(1, 0x11, &V4), b"G".to_vec()].concat(),
            wrong_sum,
            too_long,
        ] {
            assert!(ProxyHeader::read(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    /// A header of which one byte is another one either says something or is refused; nothing else happens.
    #[test]
    fn headers_with_a_wrong_byte() {
        for (bytes, ..) in valid() {
            for at in 0..bytes.len().min(300) {
                for byte in [0, b' ', b'\r', b'\n', 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = byte;
                    let _ = ProxyHeader::read(&changed);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn takes_any_bytes(v1 in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let begin = if v1 { V1 } else { SIGNATURE };
            let bytes = [begin, &rest].concat();
            if let Ok(ProxyRead::More(more)) = ProxyHeader::read(&bytes) {
                prop_assert!(more > 0 && bytes.len() + more <= MAX_V2);
            }
        }
    }
}
