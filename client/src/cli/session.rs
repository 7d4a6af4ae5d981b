//! What every command needs: the profile, a client, and the options that were typed.

use crate::args::{Common, Replace, Writing};
use crate::failure::Failure;
use quorate_client::{
    Client, Layout, NodeId, Profile, ProfileError, ReadOptions, ScanOptions, Supersede, Via, WriteOptions, new_op_id,
};
use quorate_ring::topology::Bucket;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Session {
    pub client: Client,
    pub common: Common,
    /// The name of the bucket.
    pub bucket: String,
    via: Via,
}

impl Session {
    pub async fn open(common: Common) -> Result<Self, Failure> {
        let profile = load_profile(&common)?;
        let client = Client::connect(&profile).await?;
        let bucket = common.bucket.clone().unwrap_or(profile.bucket);
        let via = match &common.node {
            None => Via::Owner,
            Some(name) => Via::Node(node_named(&client.layout(), name)?),
        };
        Ok(Self { client, common, bucket, via })
    }

    pub fn layout(&self) -> Arc<Layout> {
        self.client.layout()
    }

    /// The settings of the bucket.
    pub fn bucket_of<'a>(&self, layout: &'a Layout) -> Result<&'a Bucket, Failure> {
        let topology = layout.topology();
        topology.bucket_named(&self.bucket).ok_or_else(|| {
            let known = topology.buckets.iter().map(|b| b.name.clone()).collect();
            Failure::read(&quorate_client::Declined::NoBucket { name: self.bucket.clone(), known })
        })
    }

    pub fn read_options(&self) -> ReadOptions {
        let Common { deadline, .. } = self.common;
        let via = self.via;
        let request_id = (self.common.trace && !self.common.output.is_json()).then(new_op_id);
        let (r, quorum) = (self.common.r(), self.common.quorum());
        ReadOptions { r, quorum, deadline, via, request_id, ..ReadOptions::default() }
    }

    pub fn scan_options(&self, prefix: Vec<u8>) -> ScanOptions {
        ScanOptions { prefix, r: self.common.r(), deadline: self.common.deadline, ..ScanOptions::default() }
    }

    /// The CLI's default is `latest`: a person means to replace what is there.
    pub fn write_options(&self, writing: &Writing) -> WriteOptions {
        let supersede = match (&writing.context, writing.supersede) {
            (Some(context), _) => Supersede::Seen(context.clone()),
            (None, None | Some(Replace::Latest)) => Supersede::Latest,
            (None, Some(Replace::Local)) => Supersede::Local,
            (None, Some(Replace::Nothing)) => Supersede::Nothing,
        };
        WriteOptions {
            r: self.common.r(),
            w: self.common.w(),
            quorum: self.common.quorum(),
            durability: self.common.durability(),
            supersede: Some(supersede),
            op_id: Some(writing.op_id.unwrap_or_else(new_op_id)),
            expires_ms: None,
            deadline: self.common.deadline,
            via: self.via,
        }
    }
}

fn node_named(layout: &Layout, name: &str) -> Result<NodeId, Failure> {
    layout.topology().node_named(name).map(|node| node.id).ok_or_else(|| {
        let known: Vec<_> = layout.topology().nodes.iter().map(|n| n.name.as_str()).collect();
        Failure::usage(format!("there is no node {name:?}; there are {}", known.join(", ")))
            .advise("`quorate ring` lists the nodes")
    })
}

const NO_PROFILE_ADVICE: &str =
    "`quorate-lab up` starts a cluster on this machine and writes one; else give one with --profile FILE";

pub fn load_profile(common: &Common) -> Result<Profile, Failure> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let path = profile_path(common.profile.as_deref(), home.as_deref(), &|path| path.exists())?;
    Profile::load(&path).map_err(|error| {
        let advice = match error {
            ProfileError::Unreadable { .. } => NO_PROFILE_ADVICE,
            ProfileError::Malformed { .. } => "mend that file; the one that `quorate-lab up` writes shows how it looks",
        };
        Failure::usage(error.to_string()).advise(advice)
    })
}

/// A given path as it is; a given bare name also in the folder of profiles; else the first of the usual places.
fn profile_path(
    given: Option<&Path>,
    config: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<PathBuf, Failure> {
    let folder = config.map(|config| config.join("quorate"));
    if let Some(given) = given {
        let bare = given.components().count() == 1 && given.extension().is_none();
        let named = folder.filter(|_| bare && !exists(given)).map(|f| f.join(given).with_extension("toml"));
        return Ok(named.unwrap_or_else(|| given.to_path_buf()));
    }
    let usual = [Some(PathBuf::from(".lab/client.toml")), folder.map(|f| f.join("client.toml"))];
    let looked: Vec<PathBuf> = usual.into_iter().flatten().collect();
    looked.iter().find(|path| exists(path)).cloned().ok_or_else(|| {
        let places: Vec<_> = looked.iter().map(|p| p.display().to_string()).collect();
        Failure::usage(format!("there is no profile; looked for {}", places.join(" and "))).advise(NO_PROFILE_ADVICE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_the_usual_places() {
        let config = Path::new("/home/u/.config");
        let find = |given: Option<&str>, there: &[&str]| {
            let exists = |path: &Path| there.contains(&path.to_str().unwrap());
            profile_path(given.map(Path::new), Some(config), &exists).map(|p| p.to_str().unwrap().to_string())
        };
        let (lab, user) = (".lab/client.toml", "/home/u/.config/quorate/client.toml");
        assert_eq!(find(None, &[lab, user]).unwrap(), lab);
        assert_eq!(find(None, &[user]).unwrap(), user);
        let failure = find(None, &[]).unwrap_err();
        assert!(failure.code.exit() == 2 && failure.message.contains(lab), "{failure:?}");
        assert_eq!(find(Some("x/p.toml"), &[lab]).unwrap(), "x/p.toml");
        assert_eq!(find(Some("prod"), &[]).unwrap(), "/home/u/.config/quorate/prod.toml");
        assert_eq!(find(Some("prod"), &["prod"]).unwrap(), "prod");
    }
}
