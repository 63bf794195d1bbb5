//! Each thing that is refused, with the field that is named.

use rstest::rstest;

use super::super::policy::{Network, OutputDir, Policy, SeccompProfile, Tmpfs};
use super::*;

const MIB: u64 = 1024 * 1024;

fn good() -> Policy {
    Policy::new(vec!["/srv/root".into()], vec!["/bin/true".to_owned()])
}

fn granted(policy: Policy, grants: &[&str]) -> Policy {
    let parsed = grants.iter().map(|grant| grant.parse().expect("a grant"));
    parsed.fold(policy, Policy::grant)
}

fn output(at: &str, into: &str) -> OutputDir {
    Policy::new(vec![], vec![]).output(at, into).outputs.remove(0)
}

#[test]
fn the_defaults_pass() {
    assert!(check(&good()).is_ok());
}

#[test]
fn everything_that_the_builder_sets_passes_and_is_kept() {
    let policy = good()
        .input("/etc/hostname", "/tmp/name")
        .tmpfs("/tmp", MIB, 64)
        .tmpfs("/var/tmp", MIB, 64)
        .data("/srv/data", "/data")
        .output("/output", std::env::temp_dir().join("pantry-validate-none"))
        .env("A", "b=c")
        .cwd("/data")
        .hostname("one.example")
        .identity(0, 0)
        .require(super::super::policy::Require::publishing())
        .stdio(super::super::policy::Stdio::Captured)
        .network(Network::None)
        .limits(Limits::build())
        .profile(SeccompProfile::Command);
    let policy = granted(policy, &["CHOWN", "NET_BIND_SERVICE", "file-control"]);
    check(&policy).expect("it can be done");
    let scratch: Vec<_> = policy.tmpfs.iter().map(|tmpfs| (tmpfs.at.to_str(), tmpfs.size_bytes)).collect();
    assert_eq!(
        scratch,
        [(Some("/tmp"), MIB), (Some("/var/tmp"), MIB)],
        "/tmp was sized anew, not made twice"
    );
    let json = serde_json::to_string(&policy).expect("serializes");
    assert_eq!(serde_json::from_str::<Policy>(&json).expect("is read again"), policy);
}

#[rstest]
#[case::no_program("argv", |p: &mut Policy| p.argv.clear())]
#[case::relative_program("argv[0]", |p: &mut Policy| p.argv = vec!["true".into()])]
#[case::nul("argv and env", |p: &mut Policy| p.argv.push("a\0b".into()))]
#[case::nul_in_value("argv and env", |p: &mut Policy| { p.env.insert("A".into(), "\0".into()); })]
#[case::nul_in_name("argv and env", |p: &mut Policy| { p.env.insert("A\0".into(), String::new()); })]
#[case::long_argument("argv and env", |p: &mut Policy| p.argv.push("a".repeat(128 * 1024)))]
#[case::long_variable("argv and env", |p: &mut Policy| { p.env.insert("A".into(), "a".repeat(128 * 1024 - 2)); })]
#[case::much_text("argv and env", |p: &mut Policy| p.argv.extend(vec!["a".repeat(100_000); 11]))]
#[case::many_arguments("argv and env", |p: &mut Policy| p.argv.extend(vec![String::new(); 120_000]))]
#[case::bad_variable("env", |p: &mut Policy| { p.env.insert("A=B".into(), String::new()); })]
#[case::nameless_variable("env", |p: &mut Policy| { p.env.insert(String::new(), String::new()); })]
#[case::dotted_cwd("cwd", |p: &mut Policy| p.cwd = "/tmp/../etc".into())]
#[case::descriptor_relative("cwd", |p: &mut Policy| p.cwd = "proc/self/fd/7".into())]
#[case::empty_cwd("cwd", |p: &mut Policy| p.cwd = "".into())]
#[case::nul_in_cwd("cwd", |p: &mut Policy| p.cwd = "/a\0b".into())]
#[case::long_name("cwd", |p: &mut Policy| p.cwd = format!("/{}", "a".repeat(256)).into())]
#[case::long_path("cwd", |p: &mut Policy| p.cwd = "/abcdefg".repeat(512).into())]
#[case::relative_root("root", |p: &mut Policy| p.root = vec!["srv".into()])]
#[case::layer_twice("root", |p: &mut Policy| p.root.push("/srv/root".into()))]
#[case::layer_in_a_layer("root", |p: &mut Policy| p.root.push("/srv/root/usr".into()))]
#[case::many_layers("mounts", |p: &mut Policy| p.root.extend((0..33).map(|n| format!("/srv/{n}").into())))]
#[case::many_mounts("mounts", |p: &mut Policy| for n in 0..257 { *p = p.clone().tmpfs(format!("/t{n}"), MIB, 8) })]
#[case::trailing_slash("mount point", |p: &mut Policy| *p = p.clone().input("/etc", "/etc/"))]
#[case::over_proc("mount point", |p: &mut Policy| *p = p.clone().input("/etc", "/proc/sys"))]
#[case::over_dev("mount point", |p: &mut Policy| *p = p.clone().tmpfs("/dev/shm", MIB, 8))]
#[case::over_root("mount point", |p: &mut Policy| *p = p.clone().data("/srv/data", "/"))]
#[case::twice("mount point", |p: &mut Policy| *p = p.clone().input("/etc", "/x").input("/usr", "/x"))]
#[case::scratch_over_input("mount point", |p: &mut Policy| *p = p.clone().input("/etc", "/x").tmpfs("/x", MIB, 8))]
#[case::below_foreign("mount point", |p: &mut Policy| *p = p.clone().data("/srv/d", "/data").input("/etc", "/data/etc"))]
#[case::scratch_below_input("mount point", |p: &mut Policy| *p = p.clone().input("/etc", "/x").tmpfs("/x/y", MIB, 8))]
#[case::input_over_output("mount point", |p: &mut Policy| {
    *p = p.clone().output("/output", "/nowhere-yet").input("/etc", "/output/etc");
})]
#[case::output_in_output("mount point", |p: &mut Policy| {
    *p = p.clone().output("/output", "/nowhere-yet").output("/output/b", "/nowhere-either");
})]
#[case::host_of_an_input("input from", |p: &mut Policy| *p = p.clone().input("etc", "/x"))]
#[case::the_hosts_proc("input from", |p: &mut Policy| *p = p.clone().input("/proc/1", "/x"))]
#[case::the_hosts_sys("input from", |p: &mut Policy| *p = p.clone().input("/sys", "/x"))]
#[case::the_whole_host("input from", |p: &mut Policy| *p = p.clone().input("/", "/x"))]
#[case::the_whole_host_to_write("data from", |p: &mut Policy| *p = p.clone().data("/", "/x"))]
#[case::the_root_to_write("data from", |p: &mut Policy| *p = p.clone().data("/srv", "/x"))]
#[case::in_the_root_to_write("data from", |p: &mut Policy| *p = p.clone().data("/srv/root/var", "/x"))]
#[case::an_input_to_write("data from", |p: &mut Policy| *p = p.clone().input("/d/a", "/a").data("/d", "/d"))]
#[case::output_into_data("outputs.into", |p: &mut Policy| {
    *p = p.clone().data("/srv/data", "/data").output("/output", "/srv/data/taken");
})]
#[case::outputs_into_one_place("outputs.into", |p: &mut Policy| {
    *p = p.clone().output("/a", "/nowhere-yet").output("/b", "/nowhere-yet/b");
})]
#[case::output_exists("outputs.into", |p: &mut Policy| *p = p.clone().output("/a", "/etc"))]
#[case::output_into_nothing("outputs.into", |p: &mut Policy| *p = p.clone().output("/a", "/nowhere/to/be/found"))]
#[case::output_of_no_files("outputs /a", |p: &mut Policy| {
    p.outputs = vec![OutputDir { max_files: 0, ..output("/a", "/nowhere-yet") }];
})]
#[case::output_of_no_depth("outputs /a", |p: &mut Policy| {
    p.outputs = vec![OutputDir { max_depth: 0, ..output("/a", "/nowhere-yet") }];
})]
#[case::output_over_memory("outputs /a", |p: &mut Policy| {
    p.outputs = vec![OutputDir { size_bytes: 129 * MIB, ..output("/a", "/nowhere-yet") }];
})]
#[case::scratch_over_memory("tmpfs /tmp", |p: &mut Policy| p.limits.memory_bytes = 63 * MIB)]
#[case::unlimited_tmpfs("tmpfs /x", |p: &mut Policy| p.tmpfs.push(Tmpfs { at: "/x".into(), size_bytes: 0, inodes: 10 }))]
#[case::endless_inodes("tmpfs /x", |p: &mut Policy| *p = p.clone().tmpfs("/x", MIB, 0))]
#[case::too_many_inodes("tmpfs /x", |p: &mut Policy| *p = p.clone().tmpfs("/x", MIB, u64::MAX))]
#[case::no_wall("limits.wall_ms", |p: &mut Policy| p.limits.wall_ms = 0)]
#[case::endless_wall("limits.wall_ms", |p: &mut Policy| p.limits.wall_ms = u64::MAX)]
#[case::no_memory("limits.memory_bytes", |p: &mut Policy| p.limits.memory_bytes = 0)]
#[case::endless_memory("limits.memory_bytes", |p: &mut Policy| p.limits.memory_bytes = u64::MAX)]
#[case::no_process("limits.processes", |p: &mut Policy| p.limits.processes = 0)]
#[case::endless_processes("limits.processes", |p: &mut Policy| p.limits.processes = u64::MAX)]
#[case::no_cpu("limits.cpu_percent", |p: &mut Policy| p.limits.cpu_percent = 0)]
#[case::endless_cpu("limits.cpu_percent", |p: &mut Policy| p.limits.cpu_percent = u32::MAX)]
#[case::no_files("limits.open_files", |p: &mut Policy| p.limits.open_files = 3)]
#[case::much_kept("limits.output_bytes", |p: &mut Policy| p.limits.output_bytes = 65 * MIB)]
#[case::nothing_printed("limits.output_total_bytes", |p: &mut Policy| p.limits.output_total_bytes = 0)]
#[case::host_root("identity.host_base", |p: &mut Policy| p.identity.host_base = Some(0))]
#[case::host_root_group("identity.host_group", |p: &mut Policy| p.identity.host_group = Some(0))]
#[case::no_host_group("identity", |p: &mut Policy| p.identity.host_group = Some(u32::MAX))]
#[case::no_uid("identity", |p: &mut Policy| p.identity.uid = u32::MAX)]
#[case::no_gid("identity", |p: &mut Policy| p.identity.gid = u32::MAX)]
#[case::host_name("hostname", |p: &mut Policy| p.hostname = "a b".into())]
#[case::empty_host_name("hostname", |p: &mut Policy| p.hostname = String::new())]
#[case::dotted_host_name("hostname", |p: &mut Policy| p.hostname = "a..b".into())]
#[case::nul_in_host_name("hostname", |p: &mut Policy| p.hostname = "a\0".into())]
#[case::long_host_name("hostname", |p: &mut Policy| p.hostname = "a".repeat(65))]
#[case::grant_twice("grants CHOWN", |p: &mut Policy| *p = granted(p.clone(), &["CHOWN", "KILL", "CHOWN"]))]
#[case::ports_twice("grants network-client", |p: &mut Policy| {
    *p = granted(p.clone().network(Network::Host), &["network-client=tcp:1", "network-client=tcp:2"]);
})]
#[case::client_without_network("grants network-client", |p: &mut Policy| *p = granted(p.clone(), &["network-client=tcp:443"]))]
#[case::server_without_network("grants network-server", |p: &mut Policy| *p = granted(p.clone(), &["network-server=80"]))]
#[case::the_hosts_network("grants NET_ADMIN", |p: &mut Policy| *p = granted(p.clone().network(Network::Host), &["NET_ADMIN"]))]
#[case::raw_on_the_hosts("grants NET_RAW", |p: &mut Policy| *p = granted(p.clone().network(Network::Host), &["NET_RAW"]))]
#[case::low_on_the_hosts("grants NET_BIND_SERVICE", |p: &mut Policy| {
    *p = granted(p.clone().network(Network::Host), &["NET_BIND_SERVICE"]);
})]
fn the_impossible_is_refused_with_what_why_and_a_hint(#[case] field: &str, #[case] spoil: fn(&mut Policy)) {
    let mut policy = good();
    spoil(&mut policy);
    match check(&policy) {
        Err(SandboxError::Refused { what, why, hint }) => {
            assert!(what.starts_with(field), "{what}: {why}");
            assert!(!why.is_empty() && !hint.is_empty(), "{what}: {why} ({hint})");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn scratch_may_hold_other_mounts() {
    assert!(check(&good().input("/etc", "/tmp/etc").tmpfs("/tmp/more", MIB, 8)).is_ok());
}

#[test]
fn what_only_just_fits_passes() {
    let mut policy = good();
    policy.limits.memory_bytes = 64 * MIB;
    policy.argv.push("a".repeat(128 * 1024 - 1));
    policy.hostname = "a".repeat(64);
    policy.cwd = format!("/{}", "a".repeat(255)).into();
    check(&policy).expect("it can be done");
    policy.limits.wall_ms = 0;
    check(&policy.profile(SeccompProfile::Command)).expect("commands may run on");
}

#[test]
fn an_unknown_field_is_refused() {
    let mut value = serde_json::to_value(good()).expect("serializes");
    value["privileged"] = true.into();
    assert!(serde_json::from_value::<Policy>(value).is_err());
}

#[test]
fn a_policy_of_an_older_version_has_no_grants() {
    let mut value = serde_json::to_value(good()).expect("serializes");
    value.as_object_mut().expect("an object").remove("grants");
    assert_eq!(serde_json::from_value::<Policy>(value).expect("is read"), good());
}
