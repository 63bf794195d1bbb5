//! Manifests about manifests.

use super::*;

fn about(client: &Client<'_>, subject: &Value, mark: &str, kind: Option<&str>) -> Value {
    client.push(Algorithm::Sha256, b"{}");
    let mut document = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "layers": [], "subject": subject,
        "config": descriptor(Algorithm::Sha256, EMPTY, b"{}"), "annotations": {"org.example.mark": mark},
    });
    if let Some(kind) = kind {
        document["artifactType"] = kind.into();
    }
    document
}

fn list(client: &Client<'_>, subject: &str, query: &str) -> (Response, Vec<Value>) {
    let answer = client.get(&format!("referrers/{subject}{query}"));
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), INDEX);
    let again = client.get(&format!("referrers/{subject}{query}"));
    let index: Value = answer.json().unwrap();
    assert_eq!((index["schemaVersion"].as_u64(), index["mediaType"].as_str()), (Some(2), Some(INDEX)));
    (again, index["manifests"].as_array().unwrap().clone())
}

pub(super) fn referrers_are_there_before_with_and_after_their_subject(registry: &mut Registry) {
    let client = registry.client("local/about");
    let sha256 = Algorithm::Sha256;
    let image = client.image(sha256);
    let image_bytes = image.to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let index_bytes = index.to_string().into_bytes();
    let missing = descriptor(sha256, IMAGE, b"nobody has pushed this");
    for subject in [
        descriptor(sha256, IMAGE, &image_bytes),
        descriptor(sha256, INDEX, &index_bytes),
        descriptor(Algorithm::Sha512, IMAGE, &image_bytes),
        missing,
    ] {
        let name = subject["digest"].as_str().unwrap();
        assert!(list(&client, name, "").1.is_empty());
        let kinds = [None, Some("application/vnd.example.v1"), Some("application/vnd.example.v2+json")];
        let mut expected = Vec::new();
        for (at, kind) in kinds.into_iter().enumerate() {
            let mark = format!("{at}");
            let image = about(&client, &subject, &mark, kind);
            let mut index = json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject,
                "annotations": {"org.example.mark": mark},
            });
            if let Some(kind) = kind {
                index["artifactType"] = kind.into();
            }
            for (document, media, listed) in [(image, IMAGE, kind.or(Some(EMPTY))), (index, INDEX, kind)] {
                let bytes = document.to_string().into_bytes();
                let put = client.put_manifest(&digest(&bytes), media, &bytes);
                assert_eq!((put.status().as_u16(), header(&put, "oci-subject")), (201, name));
                let mut entry = descriptor(sha256, media, &bytes);
                entry["annotations"] = document["annotations"].clone();
                if let Some(listed) = listed {
                    entry["artifactType"] = listed.into();
                }
                expected.push(entry);
            }
        }
        expected.sort_by_key(|entry| entry["digest"].as_str().unwrap().to_owned());
        let (answer, found) = list(&client, name, "");
        assert_eq!((found, header(&answer, "oci-filters-applied")), (expected.clone(), ""));
        // Asked for the empty type, it is the index that has none.
        for kind in ["", EMPTY, "application/vnd.example.v1", "application/vnd.example.v2+json", "none/such"]
        {
            let (answer, found) = list(&client, name, &format!("?artifactType={}", kind.replace('+', "%2B")));
            let of = |entry: &&Value| entry["artifactType"].as_str().unwrap_or_default() == kind;
            let only: Vec<Value> = expected.iter().filter(of).cloned().collect();
            assert_eq!(only.is_empty(), kind == "none/such");
            assert_eq!((found, header(&answer, "oci-filters-applied")), (only, "artifactType"));
        }
        // Pushed later, the subject finds them; gone again, it leaves them.
        if name == digest(&image_bytes) {
            client.manifest(sha256, None, IMAGE, &image);
            assert_eq!(list(&client, name, "").1, expected);
            client.delete(&format!("manifests/{name}"));
            assert_eq!(list(&client, name, "").1, expected);
        }
        for entry in &expected {
            client.delete(&format!("manifests/{}", entry["digest"].as_str().unwrap()));
        }
        assert!(list(&client, name, "").1.is_empty());
    }
    // No subject, no header.
    assert_eq!(header(&client.put_manifest("plain", INDEX, &index_bytes), "oci-subject"), "");
}

pub(super) fn referrers_are_told_where_nothing_is(registry: &mut Registry) {
    for repository in ["local/never/used", "no-such-repository/x"] {
        let client = registry.client(repository);
        assert!(list(&client, &digest(b"nothing"), "").1.is_empty());
        assert!(list(&client, &Algorithm::Sha512.of(b"nothing"), "?artifactType=a/b").1.is_empty());
        for bad in ["sha256:bad", "latest", "md5:00"] {
            assert_eq!(code(client.get(&format!("referrers/{bad}"))), "DIGEST_INVALID");
        }
    }
}

pub(super) fn a_long_list_comes_in_pages(registry: &mut Registry) {
    let client = registry.client("local/pages");
    let subject = descriptor(Algorithm::Sha256, IMAGE, b"popular");
    let mut pushed = Vec::new();
    for n in 0..120 {
        let document = about(&client, &subject, &n.to_string(), Some("a/b"));
        let bytes = document.to_string().into_bytes();
        assert_eq!(client.put_manifest(&digest(&bytes), IMAGE, &bytes).status(), 201);
        pushed.push(digest(&bytes));
    }
    pushed.sort();
    for query in ["", "?artifactType=a%2Fb"] {
        let mut found = Vec::new();
        let mut next = client.url(&format!("referrers/{}{query}", digest(b"popular")));
        loop {
            let page = client.to(Method::GET, next.clone()).send().unwrap();
            let link = header(&page, "link").to_owned();
            let index: Value = page.json().unwrap();
            let entries = index["manifests"].as_array().unwrap();
            found.extend(entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
            let Some((path, rest)) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else {
                break;
            };
            assert_eq!(rest, "; rel=\"next\"");
            next = next.join(path).unwrap();
        }
        assert_eq!(found, pushed);
    }
}

pub(super) fn a_fallback_tag_and_cosigns_tags_belong_to_their_image(registry: &mut Registry) {
    let client = registry.client("local/signed");
    let sha256 = Algorithm::Sha256;
    let image = client.manifest(sha256, Some("v1"), IMAGE, &client.image(sha256));
    let tag = image.digest.replace(':', "-");
    let signature = client.manifest(sha256, Some(&format!("{tag}.sig")), IMAGE, &client.image(sha256));
    // As a client writes it that found no index of referrers: the referrer names no subject.
    client.push(sha256, b"{}");
    let mut old = about(&client, &image.descriptor(), "old", Some("application/vnd.example.old"));
    old.as_object_mut().unwrap().remove("subject");
    let old = client.manifest(sha256, None, IMAGE, &old);
    let mut entry = old.descriptor();
    entry["artifactType"] = "application/vnd.example.old".into();
    let fallback = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    client.manifest(sha256, Some(&tag), INDEX, &fallback);
    let new = client.manifest(sha256, None, IMAGE, &about(&client, &image.descriptor(), "new", Some("a/b")));
    let (_, found) = list(&client, &image.digest, "");
    let mut names = [old.digest.clone(), new.digest];
    names.sort();
    assert_eq!(found.iter().map(|entry| entry["digest"].as_str().unwrap()).collect::<Vec<_>>(), names);
    let (_, only) = list(&client, &image.digest, "?artifactType=application/vnd.example.old");
    assert_eq!(only, [entry]);
    client.delete(&format!("manifests/{}", image.digest));
    for gone in [tag.clone(), format!("{tag}.sig"), signature.digest] {
        assert_eq!(client.status(Method::HEAD, &format!("manifests/{gone}")), 404, "{gone}");
    }
}
