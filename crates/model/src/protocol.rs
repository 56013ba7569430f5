//! What a port speaks, and how that is known.
//!
//! Source of the rules: Kubernetes KEP-3726 (`appProtocol`) and Istio's "Explicit protocol selection".

use std::fmt;

use serde::{Deserialize, Serialize};

/// Protocol of a service port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1 in the clear, WebSocket included.
    Http,
    /// HTTP/2 in the clear.
    Http2,
    /// gRPC over HTTP/2 in the clear.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP over TLS, not decrypted.
    Https,
    /// TLS, not decrypted.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// MongoDB, carried as opaque bytes.
    Mongo,
    /// MySQL, carried as opaque bytes.
    Mysql,
    /// Redis, carried as opaque bytes.
    Redis,
    /// Nothing says: whichever side speaks first decides.
    Undeclared,
}

/// What the data path does with a protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// Relay bytes.
    Opaque,
    /// Relay bytes, noting the server name of the TLS hello.
    Tls,
    /// Parse and balance each request.
    Http1,
    /// Relay bytes to one endpoint a connection, noting the HTTP/2 preface.
    Http2,
    /// Watch both sides; the first bytes decide.
    Detect,
}

/// How a protocol is known: printed by `pc`, the access log and the journey.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownBy {
    /// The port's `appProtocol` field.
    AppProtocol,
    /// The port's name, `{protocol}` or `{protocol}-{name}`.
    PortNamePrefix,
    /// The port's name, `{name}-{protocol}`.
    PortNameSuffix,
    /// Nothing declares it: the first bytes told, or will.
    FirstBytes,
    /// The destination belongs to no service.
    UnknownDestination,
}

impl Protocol {
    const WORDS: [(&str, Self); 11] = [
        ("http", Self::Http),
        ("http2", Self::Http2),
        ("h2c", Self::Http2),
        ("grpc", Self::Grpc),
        ("grpc-web", Self::GrpcWeb),
        ("https", Self::Https),
        ("tls", Self::Tls),
        ("tcp", Self::Tcp),
        ("mongo", Self::Mongo),
        ("mysql", Self::Mysql),
        ("redis", Self::Redis),
    ];

    /// Every word that is a protocol.
    #[must_use]
    pub fn words() -> [&'static str; 11] {
        Self::WORDS.map(|(word, _)| word)
    }

    /// Reads one protocol word, in any case; `None` where the word is not one.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word))
            .map(|&(_, protocol)| protocol)
    }

    /// The protocol of a service port, and how it is known.
    ///
    /// `appProtocol` decides alone where it is set, even when its value is not one Weir knows: its
    /// author meant something by it, and a port name must not overrule that.
    #[must_use]
    pub fn declared(app_protocol: Option<&str>, port_name: Option<&str>) -> (Self, KnownBy) {
        if let Some(value) = app_protocol.filter(|value| !value.is_empty()) {
            return match Self::from_app_protocol(value) {
                Some(protocol) => (protocol, KnownBy::AppProtocol),
                None => (Self::Undeclared, KnownBy::FirstBytes),
            };
        }
        let name = port_name.unwrap_or_default();
        if let Some(protocol) = Self::from_name_prefix(name) {
            return (protocol, KnownBy::PortNamePrefix);
        }
        if let Some(protocol) = Self::from_name_suffix(name) {
            return (protocol, KnownBy::PortNameSuffix);
        }
        (Self::Undeclared, KnownBy::FirstBytes)
    }

    fn from_app_protocol(value: &str) -> Option<Self> {
        let standard = |name: &str| value.eq_ignore_ascii_case(name);
        if standard("kubernetes.io/h2c") {
            Some(Self::Http2)
        } else if standard("kubernetes.io/ws") {
            Some(Self::Http)
        } else if standard("kubernetes.io/wss") {
            Some(Self::Https)
        } else {
            Self::from_name_prefix(value)
        }
    }

    fn from_name_prefix(name: &str) -> Option<Self> {
        let is_grpc_web = name
            .get(..8)
            .is_some_and(|head| head.eq_ignore_ascii_case("grpc-web"));
        if is_grpc_web && matches!(name.as_bytes().get(8), None | Some(b'-')) {
            return Some(Self::GrpcWeb);
        }
        Self::from_word(name.split('-').next().unwrap_or_default())
    }

    fn from_name_suffix(name: &str) -> Option<Self> {
        let (head, last) = name.rsplit_once('-')?;
        let is_grpc_web = last.eq_ignore_ascii_case("web")
            && head
                .rsplit('-')
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("grpc"));
        if is_grpc_web {
            Some(Self::GrpcWeb)
        } else {
            Self::from_word(last)
        }
    }

    /// What the data path does with it.
    #[must_use]
    pub fn handling(self) -> Handling {
        match self {
            Self::Http | Self::GrpcWeb => Handling::Http1,
            Self::Http2 | Self::Grpc => Handling::Http2,
            Self::Https | Self::Tls => Handling::Tls,
            Self::Tcp | Self::Mongo | Self::Mysql | Self::Redis => Handling::Opaque,
            Self::Undeclared => Handling::Detect,
        }
    }

    /// The word users write and read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Mongo => "mongo",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Undeclared => "undeclared",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl KnownBy {
    /// The words the tools print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppProtocol => "appProtocol",
            Self::PortNamePrefix => "port name",
            Self::PortNameSuffix => "port name suffix",
            Self::FirstBytes => "first bytes",
            Self::UnknownDestination => "unknown destination",
        }
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_then_prefix_then_suffix() {
        use KnownBy::{AppProtocol, FirstBytes, PortNamePrefix, PortNameSuffix};
        let table = [
            (Some("http"), Some("tcp-x"), Protocol::Http, AppProtocol),
            (Some("kubernetes.io/h2c"), None, Protocol::Http2, AppProtocol),
            (Some("kubernetes.io/ws"), None, Protocol::Http, AppProtocol),
            (Some("kubernetes.io/wss"), None, Protocol::Https, AppProtocol),
            (
                Some("example.com/own"),
                Some("http"),
                Protocol::Undeclared,
                FirstBytes,
            ),
            (Some(""), Some("http"), Protocol::Http, PortNamePrefix),
            (None, Some("HTTP-Web"), Protocol::Http, PortNamePrefix),
            (None, Some("grpc-web-api"), Protocol::GrpcWeb, PortNamePrefix),
            (None, Some("grpc-website"), Protocol::Grpc, PortNamePrefix),
            (None, Some("http-tcp"), Protocol::Http, PortNamePrefix),
            (None, Some("cache-redis"), Protocol::Redis, PortNameSuffix),
            (None, Some("api-grpc-web"), Protocol::GrpcWeb, PortNameSuffix),
            (None, Some("httpd"), Protocol::Undeclared, FirstBytes),
            (None, Some(""), Protocol::Undeclared, FirstBytes),
            (None, None, Protocol::Undeclared, FirstBytes),
        ];
        for (app, name, protocol, known_by) in table {
            assert_eq!(
                Protocol::declared(app, name),
                (protocol, known_by),
                "{app:?} {name:?}"
            );
        }
    }
}
