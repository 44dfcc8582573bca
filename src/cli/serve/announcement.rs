//! What `h3cast serve` prints once it is ready.

use std::net::{IpAddr, SocketAddr};

use crate::{
    browser, feed,
    identity::Identity,
    server::{Addresses, Advertise},
};

/// Feeds that get a line each; the others are at `/feeds`.
const FEEDS_SHOWN: usize = 20;

/// The page over TLS, as a browser on this machine opens it. `names` are those of the certificate.
pub(super) fn page_url(addresses: &Addresses, names: &[String]) -> String {
    let first = addresses.tls.first().map_or("localhost", String::as_str);
    // Nothing can be opened at a wildcard address: what the certificate is for leads there.
    match first.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let is_host = |name: &&String| !name.starts_with('*') && name.parse::<IpAddr>().is_err();
            let host = match names.iter().any(|name| name == "localhost") {
                true => None,
                false => names.iter().find(is_host),
            };
            let host = host.map_or("localhost", String::as_str);
            match address.port() {
                443 => format!("https://{host}/"),
                port => format!("https://{host}:{port}/"),
            }
        }
        _ => format!("https://{first}/"),
    }
}

/// The page at a name that a certificate authority issues the certificate for.
fn issued_url(addresses: &Addresses, advertised: Option<&Advertise>, name: &str) -> String {
    let at = advertised.map(ToString::to_string).or_else(|| addresses.tls.first().cloned()).unwrap_or_default();
    match at.rsplit_once(':') {
        None | Some((_, "443")) => format!("https://{name}/"),
        Some((_, port)) => format!("https://{name}:{port}/"),
    }
}

/// The whole text. `feeds` are names, and patterns of names; `access` says who can read and write them; `issued` is a name that a
/// certificate authority issues the certificate for.
pub(super) fn text(
    addresses: &Addresses,
    advertised: Option<&Advertise>,
    feeds: &[String],
    access: &str,
    identity: &Identity,
    issued: Option<&str>,
) -> String {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let interfaces: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    let names = identity.current().names().to_vec();
    let page = match issued {
        Some(name) => issued_url(addresses, advertised, name),
        None => page_url(addresses, &names),
    };
    let current = identity.certificate_for(browser::host(&page));
    let certificate = match issued {
        // What stands in for it is soon replaced.
        Some(_) if current.is_self_signed() => {
            vec![("certificate", "not issued yet (the log says when it is)".into())]
        }
        _ => vec![
            ("certificate", format!("SHA-256 {} (DER)", current.hash().hex())),
            ("public key", format!("SHA-256 {} (SPKI, base64)", current.spki_hash().base64())),
        ],
    };
    // Browsers trust what an authority has issued, and find HTTP/3 by themselves.
    let with_command = issued.is_none() && !addresses.udp.is_empty();
    let mut elsewhere = places(addresses, &page, with_command);
    if issued.is_none() {
        let urls = addresses.tls.iter().flat_map(|at| network(at, &interfaces, &names));
        elsewhere.extend(urls.map(|url| ("network".to_owned(), url)));
    }
    elsewhere.extend(advertised.map(|at| ("advertised".to_owned(), advertised_url(at, &page))));
    let mut of_feeds = feed_lines(feeds, &page);
    of_feeds.push(("access".into(), access.to_owned()));
    let groups = [elsewhere, of_feeds, certificate.into_iter().map(owned).collect()];
    // What scripts wait for, and the address that works in any browser.
    let ready = addresses.http.as_ref().map_or_else(|| page.clone(), |http| format!("http://{http}/"));
    let mut text = format!("ready {ready}\n");
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        text.push('\n');
        for (label, value) in group {
            text += &format!("  {label:<14} {value}\n");
        }
    }
    if !with_command {
        return text + "\n";
    }
    let chrome = browser::chrome_command(&page, &current.spki_hash());
    text + &format!("\n  Chrome with the page itself over HTTP/3:\n    {chrome}\n\n")
}

fn owned((label, value): (&str, String)) -> (String, String) {
    (label.to_owned(), value)
}

/// What clients are told.
fn advertised_url(at: &Advertise, page: &str) -> String {
    match at.host() {
        Some(_) => format!("https://{at}/"),
        None => format!("https://{}{at}/", browser::host(page)),
    }
}

/// Where else the page is.
fn places(addresses: &Addresses, page: &str, with_command: bool) -> Vec<(String, String)> {
    let mut places = Vec::new();
    if addresses.http.is_some() {
        places.push(match with_command {
            true => ("over HTTP/3", format!("{page}  (with the Chrome command below)")),
            false => ("over HTTPS", page.to_owned()),
        });
    }
    let is_wildcard = |at: &str| at.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_unspecified());
    // Nothing can be opened at a wildcard address, and those of its interfaces follow.
    let others = addresses.tls.iter().skip(1).filter(|other| !is_wildcard(other));
    places.extend(others.map(|other| ("also at", format!("https://{other}/"))));
    places.into_iter().map(owned).collect()
}

/// How other machines reach a listener at a wildcard address, and what keeps them from it.
fn network(listener: &str, interfaces: &[IpAddr], names: &[String]) -> Vec<String> {
    let Ok(listener) = listener.parse::<SocketAddr>() else { return Vec::new() };
    if !listener.ip().is_unspecified() {
        return Vec::new();
    }
    let reached = |ip: &&IpAddr| {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        ip.is_ipv4() == listener.is_ipv4() && !ip.is_loopback() && !link_local
    };
    let urls = interfaces.iter().filter(reached);
    let is_named = |ip: &IpAddr| names.iter().any(|name| name.parse() == Ok(*ip));
    let url = |ip: &IpAddr| {
        let url = format!("https://{}/", SocketAddr::new(*ip, listener.port()));
        match is_named(ip) {
            true => url,
            false => url + "  (browsers warn about its certificate, unless you use --acme NAME or --cert)",
        }
    };
    urls.map(url).collect()
}

/// A line for each feed, with its own URL.
fn feed_lines(feeds: &[String], page: &str) -> Vec<(String, String)> {
    let line = |name: &String| match name.as_str() {
        feed::DEFAULT => ("feed".to_owned(), format!("{page}stream")),
        name => ("feed".to_owned(), format!("{page}stream/{name}")),
    };
    let mut lines: Vec<_> = feeds.iter().take(FEEDS_SHOWN).map(line).collect();
    if feeds.len() > FEEDS_SHOWN {
        lines.push(("feeds".into(), format!("{page}feeds lists {} more", feeds.len() - FEEDS_SHOWN)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feed_has_its_url() {
        let lines = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            feed_lines(&names, "https://localhost:4433/")
                .into_iter()
                .map(|(label, url)| format!("{label} {url}"))
                .collect()
        };
        assert_eq!(lines(&["default"]), ["feed https://localhost:4433/stream"]);
        assert_eq!(
            lines(&["build", "log.*"]),
            ["feed https://localhost:4433/stream/build", "feed https://localhost:4433/stream/log.*"]
        );
        let many = lines(&["x"; 23]);
        assert_eq!((many.len(), many[20].as_str()), (21, "feeds https://localhost:4433/feeds lists 3 more"));
    }

    #[test]
    fn a_certificate_of_an_authority_is_shown_by_its_name() {
        let identity = Identity::localhost().unwrap();
        let mut addresses = Addresses::default();
        (addresses.tls, addresses.http) = (vec!["127.0.0.1:24443".into()], Some("localhost:80".into()));
        addresses.udp = vec!["127.0.0.1:24443".parse().unwrap()];
        let text = |addresses: &Addresses, advertised: Option<&str>, issued| {
            let advertised = advertised.map(|at| at.parse().unwrap());
            text(addresses, advertised.as_ref(), &["log".into()], "everyone", &identity, issued)
        };
        for (advertised, page) in [(None, "https://cast.example:24443/"), (Some(":443"), "https://cast.example/")] {
            let issued = text(&addresses, advertised, Some("cast.example"));
            assert!(issued.contains(&format!("over HTTPS     {page}\n")), "{issued}");
            assert!(issued.contains("not issued yet") && !issued.contains("Chrome"), "{issued}");
            assert!(!issued.contains("SHA-256") && !issued.contains("127.0.0.1"), "{issued}");
        }
        assert!(text(&addresses, None, None).contains("(with the Chrome command below)"));
        // As systemd may have it.
        addresses.udp.clear();
        let without = text(&addresses, None, None);
        assert!(!without.contains("HTTP/3") && without.contains("SHA-256"), "{without}");
    }

    #[test]
    fn only_a_wildcard_address_is_opened_as_localhost() {
        for (bound, opened) in [
            ("0.0.0.0:4433", "localhost:4433"),
            ("[::]:4433", "localhost:4433"),
            ("10.0.0.0:4433", "10.0.0.0:4433"),
            ("120.0.0.0:4433", "120.0.0.0:4433"),
            ("[2001:db8::]:4433", "[2001:db8::]:4433"),
            ("localhost:4433", "localhost:4433"),
            ("cast.example:4433", "cast.example:4433"),
        ] {
            let mut addresses = Addresses::default();
            addresses.tls = vec![bound.into()];
            assert_eq!(page_url(&addresses, &["localhost".into()]), format!("https://{opened}/"));
        }
    }

    #[test]
    fn what_the_certificate_is_for_leads_to_a_wildcard_address() {
        let mut addresses = Addresses::default();
        for (bound, names, opened) in [
            ("0.0.0.0:443", &["cast.example"] as &[&str], "cast.example"),
            ("[::]:4433", &["*.cast.example", "192.0.2.1", "cast.example"], "cast.example:4433"),
            ("0.0.0.0:4433", &["localhost", "cast.example"], "localhost:4433"),
            ("0.0.0.0:4433", &[], "localhost:4433"),
            ("192.0.2.1:4433", &["cast.example"], "192.0.2.1:4433"),
        ] {
            addresses.tls = vec![bound.into()];
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(page_url(&addresses, &names), format!("https://{opened}/"));
        }
    }

    #[test]
    fn wildcard_listeners_show_the_addresses_of_their_family() {
        let interfaces = ["127.0.0.1", "192.168.1.5", "169.254.3.4", "::1", "fe80::1", "2001:db8::5"];
        let interfaces = interfaces.map(|ip| ip.parse().unwrap());
        let names = ["192.168.1.5".to_owned()];
        assert_eq!(network("0.0.0.0:4433", &interfaces, &names), ["https://192.168.1.5:4433/"]);
        // What is printed there would be refused.
        let warned =
            "https://[2001:db8::5]:4433/  (browsers warn about its certificate, unless you use --acme NAME or --cert)";
        assert_eq!(network("[::]:4433", &interfaces, &names), [warned]);
        for bound in ["localhost:4433", "127.0.0.1:4433", "192.168.1.5:4433"] {
            assert!(network(bound, &interfaces, &names).is_empty(), "{bound}");
        }
    }
}
