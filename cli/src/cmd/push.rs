//! Sending images to registries.

use davit_contracts::storage::PushRequest;

use super::pull::{authority, canonical, credentials, has_tag_or_digest, show_told};
use crate::app::App;
use crate::args::image::PushArgs;
use crate::error::{Failure, Outcome};
use crate::output;

/// `davit push`
pub async fn push(app: &App, args: &PushArgs) -> Outcome {
    let tagged = has_tag_or_digest(&args.image);
    if args.all_tags && tagged {
        return Err(Failure::Usage("tag can't be used with --all-tags/-a".into()));
    }
    if !args.all_tags && !tagged && !args.quiet {
        output::line("Using default tag: latest");
    }
    let request = PushRequest {
        reference: args.image.clone(),
        auth: credentials(&args.registry, &args.image)?,
        plain_http: args.registry.plain_http,
        skip_tls_verify: !args.registry.tls_verify,
        ca_pem: authority(&args.registry)?,
        all_tags: args.all_tags,
    };
    let stream = app.storage(app.images().await?.push(request)).await?;
    for image in show_told(app, stream, args.quiet).await? {
        if args.quiet {
            image.references.iter().for_each(|r| output::line(canonical(r)));
        }
    }
    Ok(())
}
