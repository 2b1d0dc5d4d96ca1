//! What the environment says of exporting spans, by the names that the OpenTelemetry specification has for all SDKs
//! ("OpenTelemetry Protocol Exporter", "General SDK Configuration").

use std::time::Duration;

use memobuild_oci::registry::Certificates;
use ureq::http::{HeaderName, HeaderValue};

use crate::cli::without_password;

/// As the specification has it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The only protocol that is spoken.
const PROTOCOL: &str = "http/json";

/// Where spans go, and how.
pub(crate) struct Settings {
    /// Of traces; may hold a password.
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For all of an export.
    pub(super) timeout: Duration,
    /// What the spans come from.
    pub(super) resource: Vec<(String, String)>,
    pub(super) certificates: Certificates,
}

/// The settings, if spans are to be exported, and what is wrong with them. `variable`: the environment.
pub(crate) fn read(variable: &dyn Fn(&str) -> Option<String>) -> (Option<Settings>, Vec<String>) {
    // A variable that is empty is as good as none.
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    // What is said of traces goes before what is said of everything.
    let either = |name: &str| {
        let (of_traces, of_all) = (format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}"));
        set(&of_traces).map(|value| (of_traces, value)).or_else(|| set(&of_all).map(|value| (of_all, value)))
    };
    let mut wrong = Vec::new();
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let others = set("OTEL_TRACES_EXPORTER").is_some_and(|list| !list.split(',').any(|name| name.trim() == "otlp"));
    let Some((from, given)) = either("ENDPOINT").filter(|_| !disabled && !others) else { return (None, wrong) };
    let url = match from.contains("TRACES") {
        true => given,
        false => format!("{}/v1/traces", given.trim_end_matches('/')),
    };
    if !is_address(&url) {
        wrong.push(format!("{from} is {}: expected http:// or https:// and a host", without_password(&url)));
        return (None, wrong);
    }
    if let Some((name, value)) = either("PROTOCOL").filter(|(_, value)| value != PROTOCOL) {
        wrong.push(format!("{name} is {value}: spans are sent as {PROTOCOL} only"));
    }
    let timeout = either("TIMEOUT").and_then(|(name, value)| match value.parse::<u64>() {
        Ok(millis) => Some(millis).filter(|millis| *millis > 0).map(Duration::from_millis),
        Err(_) => {
            wrong.push(format!("{name} is {value}: expected a number of milliseconds"));
            None
        }
    });
    let mut headers = Vec::new();
    if let Some((name, value)) = either("HEADERS") {
        for (at, header) in pairs(&value).enumerate() {
            match header.and_then(|(key, value)| Some((key.parse::<HeaderName>().ok()?, sensitive(&value)?))) {
                Some(header) => headers.push(header),
                // It may be a password.
                None => wrong.push(format!("{name}: number {} is no header", at + 1)),
            }
        }
    }
    let path = |name: &str| either(name).map(|(_, path)| path.into());
    let certificates = Certificates {
        ca: path("CERTIFICATE").into_iter().collect(),
        client: path("CLIENT_CERTIFICATE"),
        key: path("CLIENT_KEY"),
    };
    let mut resource = vec![pair("service.name", "memobuild"), pair("service.version", env!("CARGO_PKG_VERSION"))];
    let own = set("OTEL_RESOURCE_ATTRIBUTES");
    for (at, given) in own.iter().flat_map(|list| pairs(list)).enumerate() {
        match given {
            Some((key, value)) => put(&mut resource, key, value),
            None => wrong.push(format!("OTEL_RESOURCE_ATTRIBUTES: number {} is no KEY=VALUE", at + 1)),
        }
    }
    if let Some(name) = set("OTEL_SERVICE_NAME") {
        put(&mut resource, "service.name".into(), name);
    }
    let timeout = timeout.unwrap_or(TIMEOUT);
    (Some(Settings { url, headers, timeout, resource, certificates }), wrong)
}

fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.split('/').next().unwrap_or_default().is_empty())
        && url.parse::<ureq::http::Uri>().is_ok()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn put(list: &mut Vec<(String, String)>, key: String, value: String) {
    list.retain(|(known, _)| *known != key);
    list.push((key, value));
}

/// One that no log shows.
fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `KEY=VALUE,...` with values in percent encoding, as W3C Baggage has it. `None` for what is no pair.
fn pairs(list: &str) -> impl Iterator<Item = Option<(String, String)>> {
    list.split(',').filter(|item| !item.trim().is_empty()).map(|item| {
        let (key, value) = item.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some((key.to_owned(), decoded(value.trim())?))
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(code, 16).ok()?);
        out.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        read(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn url(variables: &[(&str, &str)]) -> Option<String> {
        of(variables).0.map(|settings| settings.url)
    }

    const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");

    #[test]
    fn where_spans_go() {
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(url(&[ALL]).as_deref(), Some("http://c:4318/v1/traces"));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/x/");
        assert_eq!(url(&[ALL, of_traces]).as_deref(), Some("https://t/x/"));
        for off in [
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "console,zipkin"),
        ] {
            assert_eq!(url(&[ALL, off]), None, "{off:?}");
        }
        for on in [("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "console, otlp")] {
            assert!(url(&[ALL, on]).is_some(), "{on:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_without_its_password() {
        for none in ["c:4318", "grpc://me:hunter2@c", "http://", "http://a b"] {
            let (settings, wrong) = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", none)]);
            assert!(settings.is_none() && wrong.len() == 1, "{none}");
            assert!(!wrong[0].contains("hunter2") && wrong[0].contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{wrong:?}");
        }
    }

    #[test]
    fn all_that_can_be_said() {
        let (settings, wrong) = of(&[
            ALL,
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = a=b ,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=tools%2Cci,service.version=7"),
            ("OTEL_SERVICE_NAME", "images"),
        ]);
        let settings = settings.unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let headers: Vec<(&str, &str)> =
            settings.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("authorization", "Bearer abc"), ("x-team", "a=b")]);
        assert!(!format!("{:?}", settings.headers).contains("abc"));
        assert_eq!(settings.timeout, Duration::from_millis(250));
        let resource = [pair("team", "tools,ci"), pair("service.version", "7"), pair("service.name", "images")];
        assert_eq!(settings.resource, resource);
        assert_eq!(settings.certificates.ca, [std::path::PathBuf::from("ca.pem")]);
    }

    #[test]
    fn mistakes_are_told_and_cost_nothing_else() {
        let (settings, wrong) = of(&[
            ALL,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "good=1,hunter2,a b=c,x=%zz"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x,a=1"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.timeout, TIMEOUT);
        assert_eq!(settings.headers.len(), 1);
        assert_eq!(settings.resource[0], pair("service.name", "memobuild"));
        assert!(settings.resource.contains(&pair("a", "1")));
        assert_eq!(wrong.len(), 6, "{wrong:?}");
        assert!(wrong[0].contains("http/json") && !wrong.join("").contains("hunter2"), "{wrong:?}");
    }
}
