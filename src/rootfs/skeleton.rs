//! The static files of the root, compiled in.

/// Path in the root and content of each file below `rootfs/skeleton/`.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("etc/gai.conf", include_str!("../../rootfs/skeleton/etc/gai.conf")),
    ("etc/group", include_str!("../../rootfs/skeleton/etc/group")),
    ("etc/host.conf", include_str!("../../rootfs/skeleton/etc/host.conf")),
    ("etc/hosts", include_str!("../../rootfs/skeleton/etc/hosts")),
    ("etc/nsswitch.conf", include_str!("../../rootfs/skeleton/etc/nsswitch.conf")),
    ("etc/os-release", include_str!("../../rootfs/skeleton/etc/os-release")),
    ("etc/passwd", include_str!("../../rootfs/skeleton/etc/passwd")),
    ("etc/resolv.conf", include_str!("../../rootfs/skeleton/etc/resolv.conf")),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_compiled_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/skeleton");
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        assert_eq!(found, FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }
}
