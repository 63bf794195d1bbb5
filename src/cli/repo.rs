//! `pantry repo`: the repositories of the registry, and what is in them.

mod settings;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{Format, Global};
use super::client::Client;
use super::failure::Failure;
use super::output::{print, say, table, text};
use settings::SettingsOptions;

/// What is done with repositories.
#[derive(Debug, Subcommand)]
pub(super) enum Repo {
    /// List the repositories with what they hold
    List,
    /// Show a repository: its settings and what it holds
    Show {
        /// The repository
        name: String,
    },
    /// Make a repository; clients then push to HOST/NAME/…
    Add {
        /// 1 to 63 lowercase letters and digits, joined by `.`, `_`, `__` or `-`
        name: String,
        #[command(flatten)]
        settings: SettingsOptions,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Change settings of a repository; those that are not named stay
    Set {
        /// The repository
        name: String,
        #[command(flatten)]
        settings: SettingsOptions,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a repository that holds nothing
    Rm {
        /// The repository
        name: String,
        /// Remove it with everything that it holds
        #[arg(long)]
        force: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the images of a repository
    Images {
        /// The repository
        name: String,
    },
    /// List the tags of an image, with when each was set and pulled last
    Tags {
        /// The image with its repository, such as local/team/app
        image: String,
    },
    /// Remove a tag of an image, and nothing else; also one that is immutable
    DeleteTag {
        /// IMAGE:TAG with its repository, such as local/team/app:1.0
        reference: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Apply the retention rules of a repository now
    Retention {
        /// The repository
        name: String,
        /// Show for each tag, and each manifest without one, whether it stays and why; remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(global: &Global, command: &Repo) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        Repo::List => list(global, &client).await,
        Repo::Show { name } => {
            let found = client.get(&path(name)?).await?;
            print(global, &found, show)
        }
        Repo::Add { name, settings, dry_run } => {
            let wanted = json!({ "name": name, "settings": settings.apply(&json!({}))? });
            let request = client.request(Method::POST, &format!("/v1/repositories?dry_run={dry_run}"));
            let made = client.send(request.json(&wanted)).await?;
            would(global, *dry_run, "it would be made");
            print(global, &made, show)
        }
        Repo::Set { name, settings, dry_run } => {
            let path = path(name)?;
            let found = client.get(&path).await?;
            let wanted = settings.apply(&found["settings"])?;
            let request = client.request(Method::PUT, &format!("{path}?dry_run={dry_run}"));
            let set = client.send(request.json(&wanted)).await?;
            would(global, *dry_run, "it would be like this");
            print(global, &set, show)
        }
        Repo::Rm { name, force, dry_run } => {
            let path = format!("{}?force={force}&dry_run={dry_run}", path(name)?);
            let removed = client.send(client.request(Method::DELETE, &path)).await?;
            let verb = if *dry_run { "would be removed" } else { "is removed" };
            print(global, &removed, |removed| {
                format!(
                    "repository {name} {verb}, with {} images, {} tags and {} bytes",
                    text(removed, "images"),
                    text(removed, "tags"),
                    text(removed, "bytes")
                )
            })
        }
        Repo::Images { name } => images(global, &client, name).await,
        Repo::Tags { image } => tags(global, &client, image).await,
        Repo::DeleteTag { reference, dry_run } => delete_tag(global, &client, reference, *dry_run).await,
        Repo::Retention { name, dry_run: true } => preview(global, &client, name).await,
        Repo::Retention { name, dry_run: false } => {
            let path = format!("{}/retention", path(name)?);
            let done = client.send(client.request(Method::POST, &path)).await?;
            print(global, &done, |done| {
                format!(
                    "{} images looked at; {} tags and {} manifests removed",
                    text(done, "images"),
                    text(done, "tags"),
                    text(done, "manifests")
                )
            })
        }
    }
}

/// The path of a repository; what could be another path is refused here.
fn path(name: &str) -> Result<String, Failure> {
    let simple = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(simple) {
        return Err(Failure::usage(
            "repository_name_invalid",
            format!("{name:?} is no name of a repository"),
        )
        .with_hint(Some("`pantry repo list` shows those that there are".to_owned())));
    }
    Ok(format!("/v1/repositories/{name}"))
}

/// An image as it stands in a query, and its repository.
fn image_of(image: &str) -> Result<(&str, String), Failure> {
    let simple = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    let root = image.split('/').next().unwrap_or_default();
    if !image.bytes().all(simple) {
        return Err(Failure::usage("image_name_invalid", format!("{image:?} is no name of an image")));
    }
    Ok((image, path(root)?))
}

fn would(global: &Global, dry_run: bool, line: &str) {
    if dry_run {
        say(global, &format!("dry run: {line}"));
    }
}

/// Every entry of a list whose path has parameters already.
async fn all(client: &Client, path: &str) -> Result<Vec<Value>, Failure> {
    let mut entries = Vec::new();
    let mut after = String::new();
    let join = if path.contains('?') { '&' } else { '?' };
    loop {
        let page = client.get(&format!("{path}{join}limit=200{after}")).await?;
        entries.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(entries),
        }
    }
}

fn rows(items: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let items = items["items"].as_array().into_iter().flatten();
    items.map(|item| columns.iter().map(|key| text(item, key)).collect()).collect()
}

async fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let found = json!({ "items": all(client, "/v1/repositories").await? });
    print(global, &found, |found| {
        table(
            &["NAME", "TYPE", "RESERVED", "IMAGES", "TAGS", "BYTES"],
            &rows(found, &["name", "type", "reserved", "images", "tags", "bytes"]),
        )
    })
}

fn show(found: &Value) -> String {
    let mut lines: Vec<String> = [
        "name",
        "type",
        "package",
        "reserved",
        "created_at",
        "images",
        "manifests",
        "tags",
        "blobs",
        "bytes",
    ]
    .iter()
    .map(|key| format!("{key:<26}{}", text(found, key)))
    .collect();
    let settings = &found["settings"];
    let list = |value: &Value| {
        let patterns: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if patterns.is_empty() { "-".to_owned() } else { patterns.join(" ") }
    };
    let rules = &settings["retention"];
    for (name, value) in [
        ("sparse", text(settings, "sparse")),
        ("immutable_tags", list(&settings["immutable_tags"])),
        ("retention.keep_last", text(rules, "keep_last")),
        ("retention.keep_tags", list(&rules["keep_tags"])),
        ("retention.pulled_within", settings::duration_text(&rules["pulled_within_seconds"])),
        ("retention.untagged_after", settings::duration_text(&rules["untagged_after_seconds"])),
    ] {
        lines.push(format!("{name:<26}{value}"));
    }
    lines.join("\n")
}

async fn images(global: &Global, client: &Client, name: &str) -> Result<(), Failure> {
    let found = json!({ "items": all(client, &format!("{}/images", path(name)?)).await? });
    print(global, &found, |found| {
        table(&["IMAGE", "MANIFESTS", "TAGS", "BYTES"], &rows(found, &["name", "manifests", "tags", "bytes"]))
    })
}

async fn tags(global: &Global, client: &Client, image: &str) -> Result<(), Failure> {
    let (image, path) = image_of(image)?;
    let found = json!({ "items": all(client, &format!("{path}/tags?image={image}")).await? });
    print(global, &found, |found| {
        table(&["TAG", "SET", "PULLED", "DIGEST"], &rows(found, &["tag", "set_at", "pulled_at", "digest"]))
    })
}

async fn delete_tag(global: &Global, client: &Client, reference: &str, dry_run: bool) -> Result<(), Failure> {
    let wrong = || Failure::usage("reference_invalid", format!("{reference:?} is not IMAGE:TAG"));
    let (image, tag) = reference.rsplit_once(':').ok_or_else(wrong)?;
    let (image, path) = image_of(image)?;
    if tag.is_empty() || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(wrong());
    }
    let path = format!("{path}/tags?image={image}&tag={tag}&dry_run={dry_run}");
    client.send(client.request(Method::DELETE, &path)).await?;
    let verb = if dry_run { "would be removed" } else { "is removed" };
    let answer = json!({ "image": image, "tag": tag, "dry_run": dry_run });
    print(global, &answer, |_| format!("tag {tag} of {image} {verb}"))
}

async fn preview(global: &Global, client: &Client, name: &str) -> Result<(), Failure> {
    let found = json!({ "items": all(client, &format!("{}/retention", path(name)?)).await? });
    if global.output == Format::Text {
        say(global, "dry run: nothing is removed");
    }
    print(global, &found, |found| {
        let rows: Vec<Vec<String>> = found["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| {
                let verdict = if item["keep"] == true { "keep" } else { "remove" };
                let mut row = vec![verdict.to_owned()];
                row.extend(
                    ["reason", "image", "tag", "set_at", "pulled_at", "digest"].map(|key| text(item, key)),
                );
                row
            })
            .collect();
        table(&["VERDICT", "REASON", "IMAGE", "TAG", "SET", "PULLED", "DIGEST"], &rows)
    })
}
