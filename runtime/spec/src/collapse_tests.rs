use super::*;
use std::collections::BTreeMap;

type Named = BTreeMap<&'static str, ContainerSpec>;

fn stub(name: &str) -> LayerSpec {
    LayerSpec::Stubs {
        stubs: vec![name.into()],
    }
}

fn tmp(at: &str) -> Mount {
    Mount::Tmp {
        mount_point: at.into(),
    }
}

fn vars(name: &str) -> EnvironmentElement {
    EnvironmentElement {
        vars: BTreeMap::from([(name.into(), "1".into())]),
        extend: true,
    }
}

fn parent(name: &str, members: impl IntoIterator<Item = ContainerUse>) -> Option<ContainerParent> {
    Some(ContainerParent::Container {
        name: name.into(),
        members: members.into_iter().collect(),
    })
}

fn image(name: &str, members: impl IntoIterator<Item = ImageUse>) -> Option<ContainerParent> {
    Some(ContainerParent::Image {
        name: name.into(),
        members: members.into_iter().collect(),
    })
}

/// A container that sets every member, marked with `tag`.
fn full(tag: u32) -> ContainerSpec {
    let name = tag.to_string();
    ContainerSpec {
        parent: None,
        layers: vec![stub(&name)],
        environment: vec![vars(&name)],
        mounts: vec![tmp(&name)],
        network: Some(Network::Loopback),
        enable_writable_file_system: Some(true),
        working_directory: Some(name.into()),
        user: Some(tag),
        group: Some(tag),
    }
}

fn run(container: &ContainerSpec, named: &Named) -> Result<Collapsed, String> {
    collapse(container, |name| named.get(name)).map_err(|error| error.to_string())
}

#[test]
fn defaults() {
    let collapsed = run(&ContainerSpec::default(), &Named::new()).unwrap();
    assert_eq!(
        collapsed,
        Collapsed {
            image: None,
            layers: vec![],
            environment: vec![],
            mounts: vec![],
            network: Network::Disabled,
            enable_writable_file_system: false,
            working_directory: None,
            user: 0,
            group: 0,
        }
    );
}

#[test]
fn vectors_are_prepended_and_the_nearest_scalar_wins() {
    let middle = ContainerSpec {
        parent: parent("base", ContainerUse::ALL),
        layers: vec![stub("middle")],
        user: Some(7),
        ..Default::default()
    };
    let named = Named::from([("base", full(1)), ("middle", middle)]);
    let job = ContainerSpec {
        parent: parent("middle", ContainerUse::ALL),
        layers: vec![stub("job")],
        environment: vec![vars("job")],
        group: Some(9),
        enable_writable_file_system: Some(false),
        ..Default::default()
    };
    let collapsed = run(&job, &named).unwrap();
    assert_eq!(collapsed.layers, [stub("1"), stub("middle"), stub("job")]);
    assert_eq!(collapsed.environment, [vars("1"), vars("job")]);
    assert_eq!(collapsed.mounts, [tmp("1")]);
    assert_eq!(collapsed.network, Network::Loopback);
    assert!(!collapsed.enable_writable_file_system);
    assert_eq!(collapsed.working_directory, Some("1".into()));
    assert_eq!((collapsed.user, collapsed.group), (7, 9));
}

#[test]
fn each_member_is_inherited_exactly_when_used() {
    let named = Named::from([("base", full(1))]);
    for only in ContainerUse::ALL {
        let job = ContainerSpec {
            parent: parent("base", [only]),
            ..Default::default()
        };
        let got = run(&job, &named).unwrap();
        let inherited = [
            (ContainerUse::Layers, !got.layers.is_empty()),
            (ContainerUse::Environment, !got.environment.is_empty()),
            (
                ContainerUse::WorkingDirectory,
                got.working_directory.is_some(),
            ),
            (
                ContainerUse::EnableWritableFileSystem,
                got.enable_writable_file_system,
            ),
            (ContainerUse::Mounts, !got.mounts.is_empty()),
            (ContainerUse::Network, got.network != Network::Disabled),
            (ContainerUse::User, got.user != 0),
            (ContainerUse::Group, got.group != 0),
        ];
        for (member, is_inherited) in inherited {
            assert_eq!(
                is_inherited,
                member == only,
                "use = [{}]: {}",
                only.name(),
                member.name()
            );
        }
    }
}

#[test]
fn the_mask_narrows_along_the_chain() {
    let middle = ContainerSpec {
        parent: parent("base", [ContainerUse::User, ContainerUse::Layers]),
        ..Default::default()
    };
    let named = Named::from([("base", full(1)), ("middle", middle)]);
    let job = ContainerSpec {
        parent: parent("middle", [ContainerUse::User, ContainerUse::Mounts]),
        ..Default::default()
    };
    let collapsed = run(&job, &named).unwrap();
    assert_eq!(collapsed.user, 1);
    assert!(collapsed.layers.is_empty() && collapsed.mounts.is_empty());
}

#[test]
fn unknown_parents() {
    let job = |members: &[ContainerUse]| ContainerSpec {
        parent: parent("nobody", members.iter().copied()),
        user: Some(1),
        ..Default::default()
    };
    assert_eq!(
        run(&job(&ContainerUse::ALL), &Named::new()).unwrap_err(),
        "unknown container \"nobody\""
    );
    // Nothing is wanted of it, or nothing that the job has not set: no lookup.
    assert!(run(&job(&[]), &Named::new()).is_ok());
    assert!(run(&job(&[ContainerUse::User]), &Named::new()).is_ok());

    let named = Named::from([("a", job(&ContainerUse::ALL))]);
    let child = ContainerSpec {
        parent: parent("a", ContainerUse::ALL),
        ..Default::default()
    };
    assert_eq!(
        run(&child, &named).unwrap_err(),
        "unknown container \"nobody\", named as the parent of container \"a\""
    );
}

#[test]
fn loops_are_listed_in_visiting_order() {
    let link = |to: &str| ContainerSpec {
        parent: parent(to, ContainerUse::ALL),
        ..Default::default()
    };
    let named = Named::from([("a", link("b")), ("b", link("a")), ("self", link("self"))]);
    for (start, expected) in [
        ("a", r#""a" -> "b" -> "a""#),
        ("b", r#""b" -> "a" -> "b""#),
        ("self", r#""self" -> "self""#),
    ] {
        let error = run(&link(start), &named).unwrap_err();
        assert!(
            error.ends_with(&format!("in a loop: {expected}")),
            "{error}"
        );
    }
    // The way into the loop is not part of it.
    let named = Named::from([("in", link("a")), ("a", link("b")), ("b", link("a"))]);
    let error = run(&link("in"), &named).unwrap_err();
    assert!(error.ends_with(r#": "a" -> "b" -> "a""#), "{error}");
}

#[test]
fn a_loop_that_nothing_is_wanted_of_is_no_loop() {
    let named = Named::from([
        (
            "a",
            ContainerSpec {
                parent: parent("b", [ContainerUse::User]),
                ..Default::default()
            },
        ),
        (
            "b",
            ContainerSpec {
                parent: parent("a", [ContainerUse::User]),
                user: Some(5),
                ..Default::default()
            },
        ),
    ]);
    let job = ContainerSpec {
        parent: parent("a", ContainerUse::ALL),
        ..Default::default()
    };
    assert_eq!(run(&job, &named).unwrap().user, 5);
}

#[test]
fn images() {
    let job = ContainerSpec {
        parent: image("docker://python", ImageUse::ALL),
        working_directory: Some("/w".into()),
        ..Default::default()
    };
    let used = run(&job, &Named::new()).unwrap().image.unwrap();
    assert_eq!(used.name, "docker://python");
    assert_eq!(
        used.members,
        BTreeSet::from([ImageUse::Layers, ImageUse::Environment])
    );

    // Through a container that passes on only the layers.
    let base = ContainerSpec {
        parent: image("docker://python", ImageUse::ALL),
        ..Default::default()
    };
    let named = Named::from([("base", base)]);
    let through = |members: &[ContainerUse]| ContainerSpec {
        parent: parent("base", members.iter().copied()),
        ..Default::default()
    };
    let used = run(&through(&[ContainerUse::Layers]), &named)
        .unwrap()
        .image;
    assert_eq!(used.unwrap().members, BTreeSet::from([ImageUse::Layers]));
    assert_eq!(
        run(&through(&[ContainerUse::User]), &named).unwrap().image,
        None
    );
}

#[test]
fn image_names_are_examined_only_when_the_image_is_used() {
    let job = |members: &[ImageUse]| ContainerSpec {
        parent: image("python", members.iter().copied()),
        ..Default::default()
    };
    assert!(run(&job(&[]), &Named::new()).unwrap().image.is_none());
    let error = run(&job(&ImageUse::ALL), &Named::new()).unwrap_err();
    assert!(error.contains("bad image name \"python\""), "{error}");
}

#[test]
fn a_collapsed_container_collapses_to_itself() {
    let base = ContainerSpec {
        parent: image("docker://python", ImageUse::ALL),
        working_directory: None,
        ..full(1)
    };
    let named = Named::from([("base", base)]);
    let job = ContainerSpec {
        parent: parent("base", ContainerUse::ALL),
        ..Default::default()
    };
    let collapsed = run(&job, &named).unwrap();
    assert!(collapsed.image.is_some());
    let again = run(&collapsed.clone().into_container(), &Named::new()).unwrap();
    assert_eq!(again, collapsed);
}

#[test]
fn ancestry_follows_links_that_pass_the_member_on() {
    let named = Named::from([
        (
            "base",
            ContainerSpec {
                parent: image("docker://i", [ImageUse::Layers]),
                ..Default::default()
            },
        ),
        (
            "top",
            ContainerSpec {
                parent: parent("base", ContainerUse::ALL),
                ..full(1)
            },
        ),
    ]);
    let job = |members: &[ContainerUse]| ContainerSpec {
        parent: parent("top", members.iter().copied()),
        ..Default::default()
    };
    let follow = |job: &ContainerSpec, member| ancestry(job, member, |name| named.get(name));
    let all = job(&ContainerUse::ALL);
    assert_eq!(
        follow(&all, ContainerUse::Layers).unwrap(),
        Ancestry {
            containers: vec!["top".into(), "base".into()],
            image: Some("docker://i".into())
        }
    );
    assert_eq!(follow(&all, ContainerUse::Environment).unwrap().image, None);
    assert_eq!(
        follow(&job(&[ContainerUse::User]), ContainerUse::Layers).unwrap(),
        Ancestry::default()
    );
}

#[test]
fn final_checks() {
    let mut container = run(&full(1), &Named::new()).unwrap();
    assert_eq!(check_container(&container, 1), Ok(()));
    assert_eq!(
        check_container(&container, 0),
        Err(ContainerCheckError::NoLayers)
    );
    container.mounts.push(Mount::Sys {
        mount_point: "/sys".into(),
    });
    assert_eq!(check_container(&container, 1), Ok(()));
    container.network = Network::Local;
    assert_eq!(
        check_container(&container, 1),
        Err(ContainerCheckError::SysMountWithLocalNetwork)
    );
    assert!(
        ContainerCheckError::NoLayers
            .to_string()
            .contains("layers = [{ stubs")
    );
}

#[test]
fn local_only_jobs() {
    let plain = run(&full(1), &Named::new()).unwrap();
    let job = JobSpec::default();
    assert!(!is_local_only(&job, &plain, false));
    assert!(is_local_only(&job, &plain, true));

    let mut local = plain.clone();
    local.network = Network::Local;
    assert!(is_local_only(&job, &local, false));

    let mut bound = plain.clone();
    bound.mounts.push(Mount::Bind {
        mount_point: "/m".into(),
        local_path: ".".into(),
        read_only: true,
    });
    assert!(is_local_only(&job, &bound, false));

    let capturing = JobSpec {
        capture_file_system_changes: Some(crate::CaptureFileSystemChanges {
            upper: "u".into(),
            work: "w".into(),
        }),
        ..Default::default()
    };
    assert!(is_local_only(&capturing, &plain, false));
}
