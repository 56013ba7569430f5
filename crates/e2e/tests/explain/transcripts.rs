//! The transcripts of docs/explain.md, made by the real programs: what curl says, and what `weir explain` says then.
//! `UPDATE_DOCS=1` writes them anew; else it is checked that each has its place there.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use e2e::RunAs;

use super::broken::SetUp;
use super::world::World;

const FILE: &str = "../../docs/explain.md";
const BEGIN: &str = "<!-- transcripts: written by UPDATE_DOCS=1 cargo test -p e2e --test explain -->\n";

/// Whether the documentation is to be written.
pub(crate) fn are_written() -> bool {
    env::var_os("UPDATE_DOCS").is_some()
}

#[derive(Default)]
pub(crate) struct Transcripts(Vec<(&'static str, String)>);

impl Transcripts {
    pub(crate) fn take(&mut self, world: &World, title: &'static str, set_up: &SetUp) -> Result<()> {
        let mut text = String::new();
        if let Some((words, _)) = set_up.felt {
            let (who, words) = match words.strip_prefix("proxy ") {
                Some(words) => (RunAs::Proxy, words),
                None => (RunAs::Application, words),
            };
            let shown = format!("curl -sS -m 2 {words}");
            let finished = world.client.try_run(who, "curl", shown.split(' ').skip(1))?;
            text.push_str(&format!(
                "client$ {shown}\n{}{}",
                finished.text(),
                finished.errors()
            ));
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        let words = set_up.explain;
        let said = world.explain_as(words)?;
        // A pod is entered by its proxy's process.
        let path = format!("nsenter --net={}", world.client.path());
        let printed = said.text.replace(&path, "nsenter -t 4711 -n");
        text.push_str(&format!(
            "# weir explain --from pod/mesh/client {words}\n{}# echo $?\n{}\n",
            printed, said.status
        ));
        self.0.push((title, text));
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        let document = fs::read_to_string(&path).context("docs/explain.md")?;
        if !are_written() {
            for (title, _) in &self.0 {
                ensure!(
                    document.contains(&format!("### {title}\n")),
                    "docs/explain.md has no transcript of `{title}`"
                );
            }
            return Ok(());
        }
        let (before, _) = document
            .split_once(BEGIN)
            .context("the place of the transcripts in docs/explain.md")?;
        let mut text = format!("{before}{BEGIN}");
        for (title, transcript) in &self.0 {
            text.push_str(&format!(
                "\n### {title}\n\n```text\n{}\n```\n",
                transcript.trim_end()
            ));
        }
        Ok(fs::write(&path, text)?)
    }
}
