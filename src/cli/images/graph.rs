//! All that an image consists of.

use std::collections::{BTreeMap, HashSet};

use super::content::{Descriptor, Document, MANIFEST_CAP};
use crate::cli::failure::Failure;
use crate::names::Digest;

/// Indexes name indexes no deeper than this.
const DEPTH: usize = 4;
/// An image has no more manifests and indexes than this.
const DOCUMENTS_CAP: usize = 1000;
/// And they have no more bytes together.
const BYTES_CAP: usize = 64 << 20;

/// Gives documents by their descriptors, checked against the digest.
pub(in crate::cli) trait Reads {
    /// A manifest's or an index's bytes.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure>;
}

/// An image: its documents, those that are named before those that name them, and the blobs.
#[derive(Debug, Default)]
pub(in crate::cli) struct Graph {
    pub(in crate::cli) documents: Vec<(Descriptor, Vec<u8>)>,
    pub(in crate::cli) blobs: BTreeMap<Digest, Descriptor>,
}

impl Graph {
    /// The document that everything hangs on.
    pub(in crate::cli) fn root(&self) -> &(Descriptor, Vec<u8>) {
        self.documents.last().expect("invariant: a walk begins with a document")
    }
}

/// Reads all documents below one.
pub(in crate::cli) async fn walk(reads: &impl Reads, root: Descriptor) -> Result<Graph, Failure> {
    let mut graph = Graph::default();
    let mut walk = Walk { reads, seen: HashSet::new(), bytes: 0, graph: &mut graph };
    walk.visit(root, 0).await?;
    Ok(graph)
}

struct Walk<'a, R> {
    reads: &'a R,
    seen: HashSet<Digest>,
    bytes: usize,
    graph: &'a mut Graph,
}

impl<R: Reads> Walk<'_, R> {
    async fn visit(&mut self, descriptor: Descriptor, depth: usize) -> Result<(), Failure> {
        let too = |what: &str| Failure::rejected("manifest_not_valid", format!("the image has {what}"));
        if !self.seen.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        if depth > DEPTH {
            return Err(too(&format!("indexes in indexes deeper than {DEPTH}")));
        }
        if self.seen.len() > DOCUMENTS_CAP || descriptor.size > MANIFEST_CAP {
            return Err(too("more manifests, or longer ones, than an image may have"));
        }
        let bytes = self.reads.document(&descriptor).await?;
        self.bytes += bytes.len();
        if self.bytes > BYTES_CAP {
            return Err(too(&format!("more than {BYTES_CAP} bytes of manifests")));
        }
        match Document::parse(&descriptor.media_type, &bytes)? {
            Document::Index(children) => {
                for child in children {
                    Box::pin(self.visit(child, depth + 1)).await?;
                }
            }
            Document::Image(blobs) => {
                self.graph.blobs.extend(blobs.into_iter().map(|blob| (blob.digest.clone(), blob)));
            }
        }
        self.graph.documents.push((descriptor, bytes));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::content::{INDEX_TYPE, Index, MANIFEST_TYPE};
    use super::*;
    use std::collections::HashMap;

    struct Kept(HashMap<Digest, Vec<u8>>);

    impl Kept {
        fn keep(&mut self, kind: &str, bytes: Vec<u8>) -> Descriptor {
            let descriptor = Descriptor::of(kind, &bytes);
            self.0.insert(descriptor.digest.clone(), bytes);
            descriptor
        }
        fn index(&mut self, children: &[&Descriptor]) -> Descriptor {
            let index = Index::new(children.iter().map(|&child| child.clone()).collect());
            self.keep(INDEX_TYPE, serde_json::to_vec(&index).unwrap())
        }
    }

    impl Reads for Kept {
        async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
            Ok(self.0[&descriptor.digest].clone())
        }
    }

    #[tokio::test]
    async fn what_is_named_comes_before_what_names_it() {
        let mut kept = Kept(HashMap::new());
        let blob = Descriptor::of("x", b"blob");
        let image = serde_json::json!({ "config": blob, "layers": [blob] });
        let image = kept.keep(MANIFEST_TYPE, image.to_string().into_bytes());
        let inner = kept.index(&[&image]);
        let root = kept.index(&[&image, &inner, &image]);
        let graph = walk(&kept, root.clone()).await.unwrap();
        let order: Vec<_> = graph.documents.iter().map(|(d, _)| d.digest.clone()).collect();
        assert_eq!(order, [image.digest, inner.digest, root.digest.clone()]);
        assert_eq!(graph.root().0.digest, root.digest);
        assert_eq!(graph.blobs.len(), 1);
        let mut deep = root;
        for _ in 0..DEPTH {
            deep = kept.index(&[&deep]);
        }
        assert!(walk(&kept, deep).await.is_err());
    }
}
