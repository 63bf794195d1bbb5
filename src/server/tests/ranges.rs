//! Parts of contents.

use super::*;

/// The parts of a `multipart/byteranges` body: range, type and bytes of each.
fn parts(answer: &Answer) -> Vec<(String, String, Vec<u8>)> {
    let kind = answer.header("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut found = Vec::new();
    let mut left = &answer.body[..];
    loop {
        left = left.strip_prefix(format!("--{boundary}").as_bytes()).unwrap();
        if left == b"--\r\n" {
            return found;
        }
        let head_end = left.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&left[2..head_end]).unwrap();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap().to_owned()
        };
        let range = field("Content-Range");
        let (first, last) = range["bytes ".len()..].split_once('/').unwrap().0.split_once('-').unwrap();
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        let body = &left[head_end + 4..head_end + 4 + length];
        found.push((range, field("Content-Type"), body.to_vec()));
        left = left[head_end + 4 + length..].strip_prefix(b"\r\n").unwrap();
    }
}

#[tokio::test]
async fn several_ranges_come_in_one_answer() {
    let world = World::new().await;
    for size in [1_000, 700_000_usize] {
        let content = noise(9, size);
        let blob = world.push_blob("local/app", &content).await;
        let path = format!("/v2/local/app/blobs/{blob}");
        let ranged =
            async |range: &str| world.send(Method::GET, &path, &[("range", range)], Body::empty()).await;
        let several = ranged("bytes=0-0, 500-599,-7").await;
        assert_eq!(several.is(206).header("content-length"), several.body.len().to_string());
        assert_eq!(several.header("content-range"), "");
        assert_eq!(several.header("docker-content-digest"), blob.to_string());
        let found = parts(&several);
        let ranges: Vec<&str> = found.iter().map(|part| part.0.as_str()).collect();
        let last = format!("bytes {}-{}/{size}", size - 7, size - 1);
        assert_eq!(ranges, [format!("bytes 0-0/{size}"), format!("bytes 500-599/{size}"), last]);
        let bytes: Vec<&[u8]> = found.iter().map(|part| part.2.as_slice()).collect();
        assert_eq!(bytes, [&content[..1], &content[500..600], &content[size - 7..]]);
        assert!(found.iter().all(|part| part.1 == "application/octet-stream"));
        // One that is left of several is an answer like to one that was asked for alone.
        let one = ranged("bytes=1-2,9000000-").await;
        assert_eq!(one.is(206).header("content-range"), format!("bytes 1-2/{size}"));
        assert_eq!(one.body, content[1..3]);
        assert_eq!(ranged("bytes=9000000-,9000001-").await.is(416).code(), "RANGE_INVALID");
    }
}

#[tokio::test]
async fn many_or_overlapping_ranges_get_the_whole_once() {
    let world = World::new().await;
    let content = noise(10, 10_000);
    let blob = world.push_blob("local/app", &content).await;
    let path = format!("/v2/local/app/blobs/{blob}");
    let bomb: Vec<String> = (0..1_000).map(|n| format!("{n}-")).collect();
    let dust: Vec<String> = (0..100).map(|n| format!("{}-{}", n * 3, n * 3)).collect();
    for range in [bomb.join(","), dust.join(","), "0-9,9-20".to_owned()] {
        let headers = [("range", &*format!("bytes={range}"))];
        let answer = world.send(Method::GET, &path, &headers, Body::empty()).await;
        assert_eq!(answer.is(200).body, content);
    }
}

#[tokio::test]
async fn a_manifest_has_ranges_and_versions_as_a_blob_has() {
    let world = World::new().await;
    let digest = world.push_image("local/app", "v1", b"layer").await;
    let whole = world.get("/v2/local/app/manifests/v1").await;
    let etag = format!("\"{digest}\"");
    assert_eq!((whole.header("accept-ranges"), whole.header("etag")), ("bytes", etag.as_str()));
    let head = world.head("/v2/local/app/manifests/v1").await;
    assert_eq!(head.is(200).header("content-length"), whole.body.len().to_string());
    assert_eq!((head.header("accept-ranges"), head.header("etag")), ("bytes", etag.as_str()));
    let ask = async |headers: &[(&str, &str)]| {
        world.send(Method::GET, "/v2/local/app/manifests/v1", headers, Body::empty()).await
    };
    let part = ask(&[("range", "bytes=2-5")]).await;
    assert_eq!(part.is(206).body, whole.body[2..6]);
    let several = ask(&[("range", "bytes=0-0,2-3")]).await;
    assert_eq!(parts(several.is(206))[1].1, IMAGE);
    assert_eq!(parts(&several)[1].2, whole.body[2..4]);
    ask(&[("range", "bytes=900000-")]).await.is(416);
    ask(&[("range", "bytes=0-1"), ("if-range", &etag)]).await.is(206);
    ask(&[("range", "bytes=0-1"), ("if-range", &format!("W/{etag}"))]).await.is(200);
    ask(&[("range", "bytes=0-1"), ("if-range", "Wed, 21 Oct 2015 07:28:00 GMT")]).await.is(200);
    let same = ask(&[("if-none-match", &format!("\"x\", W/{etag}")), ("range", "bytes=0-1")]).await;
    assert!(same.is(304).body.is_empty() && same.header("etag") == etag);
}

#[tokio::test]
async fn an_empty_blob_has_no_range() {
    let world = World::new().await;
    let empty = world.push_blob("local/app", b"").await;
    let path = format!("/v2/local/app/blobs/{empty}");
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=0-0,1-1"] {
        let refused = world.send(Method::GET, &path, &[("range", range)], Body::empty()).await;
        assert_eq!(refused.is(416).header("content-range"), "bytes */0", "{range}");
    }
}
