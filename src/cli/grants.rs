//! `pantry grant`: who may do what in which repositories.

use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::arguments::{Global, Grant};
use super::client::Client;
use super::failure::Failure;
use super::output::{print, safe, say, table, text};
use crate::access::{Pattern, Rights, Subject};

pub(super) async fn run(global: &Global, command: &Grant) -> Result<(), Failure> {
    match command {
        Grant::Add { subject, pattern, rights } => {
            let (subject, pattern) = (whom(subject)?, where_to(pattern)?);
            let rights = Rights::parse(rights).ok_or_else(|| {
                Failure::usage("rights_not_valid", format!("{:?} are no rights", safe(rights)))
                    .with_hint(Some("write some of pull,push,delete,admin".to_owned()))
            })?;
            let client = Client::new(global)?;
            let body = json!({ "subject": subject, "pattern": pattern, "rights": rights });
            let grant = client.send(client.request(Method::PUT, "/v1/grants").json(&body)).await?;
            print(global, &grant, |_| format!("{subject} may {rights} in {pattern}"))
        }
        Grant::List => {
            let grants = Client::new(global)?.list("/v1/grants").await?;
            if grants.is_empty() {
                say(global, "nothing is granted; `pantry grant add SUBJECT PATTERN RIGHTS` does");
            }
            print(global, &json!({ "items": grants }), list)
        }
        Grant::Rm { subject, pattern } => {
            let (subject, pattern) = (whom(subject)?, where_to(pattern)?);
            let client = Client::new(global)?;
            let parameters = [("subject", subject.to_string()), ("pattern", pattern.to_string())];
            let query = Url::parse_with_params("http://localhost/", &parameters)
                .ok()
                .and_then(|url| url.query().map(str::to_owned))
                .unwrap_or_default();
            client.send(client.request(Method::DELETE, &format!("/v1/grants?{query}"))).await?;
            let answer = json!({ "subject": subject, "pattern": pattern });
            print(global, &answer, |_| format!("{subject} is granted nothing on {pattern} any more"))
        }
    }
}

fn whom(text: &str) -> Result<Subject, Failure> {
    Subject::parse(text)
        .map_err(|error| Failure::usage(error.code(), error.to_string()).with_hint(error.hint()))
}

fn where_to(text: &str) -> Result<Pattern, Failure> {
    Pattern::parse(text).ok_or_else(|| {
        Failure::usage("pattern_not_valid", format!("{:?} is no pattern", safe(text)))
            .with_hint(Some("write `*`, or a name such as local/team: it and all below it".to_owned()))
    })
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|grant| {
            let rights: Vec<&str> =
                grant["rights"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            vec![text(grant, "subject"), text(grant, "pattern"), rights.join(",")]
        })
        .collect();
    table(&["SUBJECT", "PATTERN", "RIGHTS"], &rows)
}
