//! Registries that want to know who asks.

use crate::{
    Place,
    registry::{Registry, Tokens},
    three_layers,
};
use std::fs;

/// Base64 of `me:secret`.
const PASSWORD: &str = "bWU6c2VjcmV0";

fn registry() -> (Registry, Place, String) {
    let registry = Registry::start();
    three_layers().push(&mut registry.state(), "team/i", "v");
    let name = format!("docker://{}/team/i:v", registry.host);
    (registry, Place::new(), name)
}

fn log_in(place: &Place, registry: &Registry, auth: &str) {
    let config = format!(
        r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#,
        registry.host
    );
    fs::write(place.directory.path().join("config.json"), config).unwrap();
}

#[test]
fn anonymous_tokens() {
    let (registry, place, name) = registry();
    registry.state().tokens = Some(Tokens {
        password: None,
        good_for: 100,
    });
    place.pull(&name).unwrap();
    assert_eq!(registry.state().tokens_given, 1);
}

#[test]
fn tokens_that_expire_are_replaced() {
    let (registry, place, name) = registry();
    registry.state().tokens = Some(Tokens {
        password: None,
        good_for: 1,
    });
    place.pull(&name).unwrap();
    assert!(registry.state().tokens_given >= 3);
}

#[test]
fn tokens_that_are_never_accepted_are_told() {
    let (registry, place, name) = registry();
    registry.state().tokens = Some(Tokens {
        password: None,
        good_for: 0,
    });
    let error = place.error(&name);
    assert!(
        error.contains("it answered 401 Unauthorized")
            && error.contains(
                "it does not accept the access token that it was shown (invalid_token: token \
                 expired), which its token server has just issued"
            ),
        "{error}"
    );
}

#[test]
fn passwords_for_tokens() {
    let (registry, place, name) = registry();
    registry.state().tokens = Some(Tokens {
        password: Some(PASSWORD.into()),
        good_for: 100,
    });
    let error = place.error(&name);
    assert!(
        error.contains(
            "getting an access token from 127.0.0.1: it answered 401 Unauthorized (WRONG_PASSWORD"
        ) && error.ends_with("; it may want credentials: run `docker login`"),
        "{error}"
    );
    log_in(&place, &registry, "bWU6d3Jvbmc=");
    let error = place.error(&name);
    assert!(
        error.ends_with("; the configured credentials are not accepted: run `docker login` again"),
        "{error}"
    );
    log_in(&place, &registry, PASSWORD);
    place.pull(&name).unwrap();
}

#[test]
fn passwords_for_the_registry() {
    let (registry, place, name) = registry();
    registry.state().basic = Some(PASSWORD.into());
    let error = place.error(&name);
    assert!(
        error
            .contains("it wants a user and a password, and none are configured; run `docker login"),
        "{error}"
    );
    log_in(&place, &registry, PASSWORD);
    place.pull(&name).unwrap();
}

#[test]
fn a_broken_configuration_harms_only_what_needs_it() {
    let (registry, place, name) = registry();
    let config = place.directory.path().join("config.json");
    fs::write(&config, r#"{"credsStore": "there-is-none-of-this-name"}"#).unwrap();
    registry.state().basic = Some(PASSWORD.into());
    let error = place.error(&name);
    assert!(
        error.contains(
            "the credential helper `docker-credential-there-is-none-of-this-name` cannot be started"
        ),
        "{error}"
    );
    registry.state().basic = None;
    registry.state().tokens = Some(Tokens {
        password: None,
        good_for: 100,
    });
    place.pull(&name).unwrap();
}
