//! Parts of blobs and manifests.

use super::*;

pub(super) fn a_range_gives_what_it_names(registry: &mut Registry) {
    let client = registry.client("local/ranges");
    for (algorithm, size) in
        [(Algorithm::Sha256, 2_048), (Algorithm::Sha512, 2_048), (Algorithm::Sha256, 1 << 20)]
    {
        let bytes = unique(size);
        let digest = client.push(algorithm, &bytes);
        let ask = |range: &str| {
            client.ask(Method::GET, &format!("blobs/{digest}")).header("Range", range).send().unwrap()
        };
        for (range, first, end) in [
            ("bytes=500-1499", 500, 1_500),
            ("bytes=500-", 500, size),
            ("bytes=-500", size - 500, size),
            ("bytes=-99999999", 0, size),
            ("bytes=2000-50000000", 2_000, size),
            ("bytes=0-0", 0, 1),
        ] {
            let part = ask(range);
            assert_eq!(part.status(), 206, "{range}");
            assert_eq!(header(&part, "content-length"), (end - first).to_string());
            assert_eq!(header(&part, "content-range"), format!("bytes {first}-{}/{size}", end - 1));
            assert_eq!(header(&part, "docker-content-digest"), digest);
            assert_eq!(part.bytes().unwrap(), &bytes[first..end], "{range}");
        }
        for range in ["bytes=500-0", "bytes=50000000-", "bytes=50000000-60000000", "bytes=-0"] {
            let refused = ask(range);
            assert_eq!(refused.status(), 416, "{range}");
            assert_eq!(header(&refused, "content-range"), format!("bytes */{size}"));
        }
        for range in ["bytes=x-y", "lines=1-2", "bytes=", "500-1499"] {
            let whole = ask(range);
            assert_eq!((whole.status().as_u16(), header(&whole, "accept-ranges")), (200, "bytes"), "{range}");
            assert_eq!(whole.bytes().unwrap(), bytes.as_slice());
        }
        let several = ask("bytes=0-9,100-199,-1");
        assert_eq!(several.status(), 206);
        let kind = header(&several, "content-type").to_owned();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let length: usize = header(&several, "content-length").parse().unwrap();
        let body = several.bytes().unwrap();
        assert_eq!(body.len(), length);
        let mut expected = Vec::new();
        for (first, end) in [(0, 10), (100, 200), (size - 1, size)] {
            expected.extend(
                format!(
                    "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{}/{size}\r\n\r\n",
                    end - 1
                )
                .bytes(),
            );
            expected.extend(&bytes[first..end]);
            expected.extend(b"\r\n");
        }
        expected.extend(format!("--{boundary}--\r\n").bytes());
        assert_eq!(body, expected.as_slice());
    }
}

pub(super) fn a_head_tells_ranges_and_takes_none(registry: &mut Registry) {
    let client = registry.client("local/heads");
    let digest = client.push(Algorithm::Sha256, &unique(5_000));
    let head =
        client.ask(Method::HEAD, &format!("blobs/{digest}")).header("Range", "bytes=0-9").send().unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "5000"));
    assert_eq!(
        (header(&head, "accept-ranges"), header(&head, "etag")),
        ("bytes", format!("\"{digest}\"").as_str())
    );
    let same =
        client.ask(Method::GET, &format!("blobs/{digest}")).header("If-None-Match", format!("\"{digest}\""));
    assert_eq!(same.send().unwrap().status(), 304);
}
