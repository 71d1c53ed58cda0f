//! Web pages that are made to talk to the server.
//!
//! A page can send a `POST` to any port of the machine it is looked at on, the loopback interface too. Its header
//! lines would be refused as unknown commands, but the lines of its body would be run as inline commands. So a
//! connection that shows one of the lines every such request begins with is ended there, as Redis does it.

use tidegate_resp::Request;

/// Whether a request is a line of HTTP. `Host:` is in every request of a browser, whatever its method.
pub(super) fn speaks_http(request: &Request) -> bool {
    let name = request.name();
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}
