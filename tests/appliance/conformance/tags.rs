//! Lists of tags and repositories.

use super::*;

pub(super) fn tags_are_listed_in_order_and_in_pages(registry: &mut Registry) {
    let client = registry.client("local/list");
    assert_eq!(code(client.get("tags/list")), "NAME_UNKNOWN");
    let bytes = client.image(Algorithm::Sha256).to_string().into_bytes();
    let mut tags: Vec<String> =
        ["v1", "v10", "v2", "V1", "_x", "a.b", "a-b", "a_b", "0"].map(str::to_owned).into();
    for tag in &tags {
        assert_eq!(client.put_manifest(tag, IMAGE, &bytes).status(), 201);
    }
    tags.sort();
    let read = |query: &str| {
        let answer = client.get(&format!("tags/list{query}"));
        assert_eq!(answer.status(), 200);
        let link = header(&answer, "link").to_owned();
        let body: Value = answer.json().unwrap();
        assert_eq!(body["name"], client.repository.as_str());
        (serde_json::from_value::<Vec<String>>(body["tags"].clone()).unwrap(), link)
    };
    assert_eq!(read(""), (tags.clone(), String::new()));
    for (at, last) in tags.iter().enumerate() {
        assert_eq!(read(&format!("?last={last}")).0, tags[at + 1..], "last without n");
    }
    assert_eq!(read("?last=b").0, tags.iter().filter(|tag| tag.as_str() > "b").cloned().collect::<Vec<_>>());
    assert_eq!(read("?n=0"), (vec![], String::new()));
    assert_eq!(read("?n=0&last=a").0, Vec::<String>::new());
    for n in 1..=tags.len() + 1 {
        let (mut found, mut query) = (Vec::new(), format!("?n={n}"));
        loop {
            let (page, link) = read(&query);
            assert_eq!(link.is_empty(), found.len() + page.len() == tags.len(), "n={n}");
            found.extend(page);
            let Some((path, _)) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else { break };
            path[path.find('?').unwrap()..].clone_into(&mut query);
        }
        assert_eq!(found, tags, "n={n}");
    }
    for bad in ["?n=-1", "?n=x", "?n="] {
        assert_eq!(client.get(&format!("tags/list{bad}")).status(), 400, "{bad}");
    }
    let catalogue: Value = registry.ask(Method::GET, "/v2/_catalog").send().unwrap().json().unwrap();
    assert!(catalogue["repositories"].as_array().unwrap().contains(&json!(client.repository)));
}
