//! How a registry lets one in: the answer to a 401, by the token protocol of the distribution
//! project or with a password.

use crate::{
    Problem,
    credentials::{self, Credentials},
    files,
    transport::{self, Transport},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_auth::parser::ChallengeParser;
use reqwest::{
    Url,
    blocking::Response,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use std::path::Path;

/// The longest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// What a registry wants to see before it answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The user's password.
    Basic,
    /// A token from a server.
    Bearer {
        realm: String,
        service: Option<String>,
        /// What it says is wrong with the token that it was shown.
        error: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that can be met; tokens before passwords. An error says what there is.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Challenge, String> {
        let mut seen = Vec::new();
        let mut basic = false;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else {
                continue;
            };
            for challenge in ChallengeParser::new(text) {
                let Ok(challenge) = challenge else {
                    seen.push(format!("{text:.200?}"));
                    break;
                };
                let parameter = |name: &str| {
                    let is_it = |(key, _): &&(&str, _)| key.eq_ignore_ascii_case(name);
                    let (_, value) = challenge.params.iter().find(is_it)?;
                    Some(http_auth::ParamValue::to_unescaped(value))
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    let error =
                        parameter("error").map(|error| match parameter("error_description") {
                            Some(description) => format!("{error}: {description}"),
                            None => error,
                        });
                    return Ok(Challenge::Bearer {
                        realm,
                        service: parameter("service"),
                        error,
                    });
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
                seen.push(challenge.scheme.to_owned());
            }
        }
        if basic {
            Ok(Challenge::Basic)
        } else if seen.is_empty() {
            Err("it refuses access without saying what it wants to see".into())
        } else {
            Err(format!(
                "it wants to see {}; only `Basic` and `Bearer` are known here",
                seen.join(", ")
            ))
        }
    }
}

/// What is sent along with requests once a registry has asked for it.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// Whether it stands for somebody in particular.
    pub(crate) has_credentials: bool,
    /// What was wrong with the configured credentials, for when the registry wants some.
    pub(crate) trouble: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets what a challenge asks for. `host` is the registry's name in image names.
pub(crate) fn authorize(
    transport: &Transport,
    config: Option<&Path>,
    host: &str,
    repository: &str,
    challenge: &Challenge,
) -> Result<Authorization, Problem> {
    let (credentials, trouble) = match config.map(|config| credentials::find(config, host)) {
        Some(Ok(found)) => (found, None),
        Some(Err(error)) => {
            // Most images are public.
            tracing::warn!("{error}; going on without credentials for {host}");
            (None, Some(error.to_string()))
        }
        None => (None, None),
    };
    let refused = |what: String| Problem::Challenge {
        host: host.to_owned(),
        what,
    };
    let has_credentials = credentials.is_some();
    let text = match challenge {
        Challenge::Basic => match &credentials {
            Some(Credentials::Password { user, password }) => basic(user, password),
            Some(Credentials::IdentityToken(_)) => {
                return Err(refused(
                    "it wants a password, but an identity token is configured".into(),
                ));
            }
            None => {
                let more = trouble.map(|trouble| format!(" ({trouble})"));
                return Err(refused(format!(
                    "it wants a user and a password, and none are configured{}; run `docker \
                     login {host}`, or add them to ~/.docker/config.json",
                    more.unwrap_or_default()
                )));
            }
        },
        Challenge::Bearer { realm, service, .. } => {
            let realm = realm_url(transport, realm).map_err(&refused)?;
            let token = ask_for_token(
                transport,
                realm,
                service.as_deref(),
                repository,
                credentials.as_ref(),
            )?;
            format!("Bearer {token}")
        }
    };
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| refused("the token that it leads to cannot be sent".into()))?;
    header.set_sensitive(true);
    Ok(Authorization {
        header,
        has_credentials,
        trouble,
    })
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Passwords go to no token server over a worse connection than to the registry.
fn realm_url(transport: &Transport, realm: &str) -> Result<Url, String> {
    let url: Url = realm
        .parse()
        .map_err(|error| format!("its token server {realm:.200?} is no URL: {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if transport.is_plain() => Ok(url),
        _ => Err(format!(
            "its token server {realm:.200?} is not to be reached over HTTPS"
        )),
    }
}

fn ask_for_token(
    transport: &Transport,
    realm: Url,
    service: Option<&str>,
    repository: &str,
    credentials: Option<&Credentials>,
) -> Result<String, Problem> {
    let host = realm.host_str().unwrap_or_default().to_owned();
    let doing = "getting an access token";
    let mut parameters = realm.clone();
    {
        let mut query = parameters.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", &format!("repository:{repository}:pull"));
        if let Some(Credentials::IdentityToken(token)) = credentials {
            query.append_pair("grant_type", "refresh_token");
            query.append_pair("client_id", "maelstrom");
            query.append_pair("refresh_token", token);
        }
    }
    let request = match credentials {
        // By OAuth 2, where the parameters are the body.
        Some(Credentials::IdentityToken(_)) => transport
            .client()
            .post(realm)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(parameters.query().unwrap_or_default().to_owned()),
        Some(Credentials::Password { user, password }) => transport
            .client()
            .get(parameters)
            .header("authorization", basic(user, password)),
        None => transport.client().get(parameters),
    };
    let network = |what: String| Problem::Network {
        doing: doing.into(),
        host: host.clone(),
        what,
        advice: "",
    };
    let response = request
        .send()
        .map_err(|error| network(transport::describe(error)))?;
    if !response.status().is_success() {
        let advice = match credentials {
            _ if response.status().is_server_error() => String::new(),
            Some(_) => {
                "; the configured credentials are not accepted: run `docker login` again".into()
            }
            None => "; it may want credentials: run `docker login`".into(),
        };
        return Err(transport::refusal(doing, &host, response, advice));
    }
    let what = || "the answer of the token server";
    let bytes = files::read_all(response, MAX_TOKEN_BYTES)
        .map_err(|error| network(error.to_string()))?
        .ok_or_else(|| Problem::TooLong {
            what: what().into(),
            limit_bytes: MAX_TOKEN_BYTES,
            limit: "which is the most that a token may have",
        })?;
    let answer: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|error| Problem::Document {
            what: what(),
            digest: None,
            problem: error.to_string(),
        })?;
    let token = answer.token.or(answer.access_token);
    token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Problem::Document {
            what: what(),
            digest: None,
            problem: "it has no token".into(),
        })
}

/// What to say when a registry refuses although it was shown what it asked for.
pub(crate) fn advice(host: &str, shown: Option<&Authorization>, response: &Response) -> String {
    let login = format!("run `docker login {host}`");
    let mut advice = match shown {
        Some(shown) if shown.has_credentials => {
            "; the configured credentials give no access to it, or there is no such image"
                .to_owned()
        }
        Some(Authorization {
            trouble: Some(trouble),
            ..
        }) => format!("; there is no such image, or it wants credentials, and {trouble}"),
        _ => format!("; there is no such image, or it wants credentials: {login}"),
    };
    if let Ok(Challenge::Bearer {
        error: Some(error), ..
    }) = Challenge::parse(response.headers())
        && shown.is_some()
    {
        advice = format!(
            "; it does not accept the access token that it was shown ({error:.200}), which its \
             token server has just issued{advice}"
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::parse(&headers)
    }

    #[test]
    fn challenges() {
        let bearer = |service: Option<&str>, error: Option<&str>| {
            Ok(Challenge::Bearer {
                realm: "https://t/x".into(),
                service: service.map(Into::into),
                error: error.map(Into::into),
            })
        };
        assert_eq!(
            parse(&[r#"Bearer realm="https://t/x",service="s",scope="repository:a:pull""#]),
            bearer(Some("s"), None)
        );
        assert_eq!(
            parse(&[
                r#"Basic realm="x""#,
                r#"bearer REALM="https://t/x", error="invalid_token", error_description="expired""#
            ]),
            bearer(None, Some("invalid_token: expired"))
        );
        assert_eq!(parse(&[r#"Basic realm="x""#]), Ok(Challenge::Basic));
        assert!(parse(&[]).unwrap_err().contains("without saying"));
        assert!(parse(&["Negotiate"]).unwrap_err().contains("Negotiate"));
        assert!(parse(&["Bearer realm=\"x"]).is_err());
    }
}
