//! `[control]`.

use ephemerd::config::Listen;

use super::{right, wrong};

#[test]
fn the_page_is_nowhere_unless_it_is_asked_for() {
    assert_eq!(right("").config.control.listen, None);
    let listen = |text: &str| right(&format!("control.listen = {text:?}")).config.control.listen;
    assert_eq!(
        listen("[::1]:9123"),
        Some(Listen::Tcp("[::1]:9123".parse().unwrap()))
    );
    assert_eq!(
        listen("unix:/run/e/page.sock"),
        Some(Listen::Unix("/run/e/page.sock".into()))
    );
}

#[test]
fn jobs_are_kept_from_the_port_of_the_page_without_asking() {
    let config = right("control.listen = \"127.0.0.1:4000\"\negress.protect_local_ports = [22]").config;
    assert_eq!(config.egress.protect_local_ports, [22, 4000]);
    let config = right("control.listen = \"unix:/run/page.sock\"\negress.protect_local_ports = [22]").config;
    assert_eq!(config.egress.protect_local_ports, [22]);
    let config = right("control.listen = \"127.0.0.1:0\"\negress.mode = \"offline\"").config;
    assert!(!config.egress.protect_local_ports.contains(&0));
}

#[test]
fn what_is_not_loopback_is_refused_with_a_way_out() {
    let cases = [
        "0.0.0.0:9123",
        "192.168.1.2:9123",
        "[::]:9123",
        "localhost:9123",
        "9123",
        "unix:page.sock",
        "127.0.0.1:0",
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|text| wrong(&format!("control.listen = {text:?}")))
        .collect();
    insta::assert_snapshot!(told.join("\n").replace("the configuration has an error\n", ""), @r#"
    e.toml:1:18: `control.listen`: `0.0.0.0:9123` is not loopback, and whoever reaches it would see every job
    hint: "127.0.0.1:9123"; let a proxy that asks who comes, or `ssh -L`, carry it further
    e.toml:1:18: `control.listen`: `192.168.1.2:9123` is not loopback, and whoever reaches it would see every job
    hint: "127.0.0.1:9123"; let a proxy that asks who comes, or `ssh -L`, carry it further
    e.toml:1:18: `control.listen`: `[::]:9123` is not loopback, and whoever reaches it would see every job
    hint: "127.0.0.1:9123"; let a proxy that asks who comes, or `ssh -L`, carry it further
    e.toml:1:18: `control.listen`: `localhost:9123` is no address with a port
    hint: for example "127.0.0.1:9123", or "unix:/run/ephemerd/page.sock"
    e.toml:1:18: `control.listen`: `9123` is no address with a port
    hint: for example "127.0.0.1:9123", or "unix:/run/ephemerd/page.sock"
    e.toml:1:18: `control.listen`: `page.sock` is not an absolute path
    hint: begin it with `/`
    e.toml:1:18: `control.listen` has port 0, and with `egress.mode = "block-lan"` jobs are kept from ports that are named
    hint: name a port, 9123 for example
    "#);
}
